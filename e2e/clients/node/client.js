'use strict';
// One program over ali-ons, the pure JavaScript client. Subcommands: load, consume, pair. The same flags, standard
// output and history as the Java program (e2e/clients/java); sends are synchronous, and the topic must exist.

const { History, Progress, Wanted, makeBody, isIntact } = require('./history');
const { Consumer, Producer, Message } = require('ali-ons');

// Attempts that the library makes by itself inside one send, unseen by us: its default.
const HIDDEN_RETRIES = 3;
const PAUSE_AFTER_ERROR_MS = 10;
const DEFAULTS = {
  group: 'e2e-group', name: 'p', mode: 'sync', listen: 'orderly', subscribe: '*', producers: '4', size: '1024',
  messages: '0', seconds: '0', rate: '0', expect: '0', 'expect-acked': '', 'give-up': '60', 'idle-timeout': '60',
};

const sleep = ms => new Promise(resolve => setTimeout(resolve, ms));
// The library's chatter goes to standard error; standard output belongs to the harness.
const logger = { info() {}, debug() {}, warn: (...a) => console.error(...a), error: (...a) => console.error(...a) };

function parse(args) {
  const options = Object.assign({}, DEFAULTS);
  for (let i = 0; i < args.length; i += 2) {
    const name = args[i].slice(2);
    if (!args[i].startsWith('--') || i + 1 === args.length) throw new Error(`expected --flag value, found ${args[i]}`);
    if (!(name in DEFAULTS) && ![ 'namesrv', 'topic', 'history' ].includes(name)) throw new Error(`unknown flag --${name}`);
    options[name] = args[i + 1];
  }
  for (const name of [ 'namesrv', 'topic', 'history' ]) {
    if (!options[name]) throw new Error(`--${name} is needed`);
  }
  if (options.mode !== 'sync') throw new Error(`--mode is sync here, not ${options.mode}`);
  return options;
}

class Load {
  constructor(options, history, progress) {
    Object.assign(this, { options, history, progress, wanted: new Set(), complete: true });
    this.producer = new Producer({
      nameSrv: options.namesrv, httpclient: {}, logger,
      producerGroup: `${options.name}-producers`, instanceName: `${options.name}-p`,
    });
    this.producer.on('error', error => console.error('producer:', error.message));
  }

  async run() {
    const senders = [];
    for (let i = 0; i < Number(this.options.producers); i++) senders.push(this.runOne(i));
    await Promise.all(senders);
    return this.complete;
  }

  async runOne(index) {
    const name = `${this.options.name}.${index}`;
    const start = Date.now();
    this.history.write({ e: 'producer', p: name, hidden: HIDDEN_RETRIES });
    for (let sequence = 0; this.goesOn(index, sequence, start); sequence++) {
      const rate = Number(this.options.rate) / Number(this.options.producers);
      const early = rate ? start + sequence * 1000 / rate - Date.now() : 0;
      if (early > 0) await sleep(early);
      await this.sendUntilAcked(`${name}-${sequence}`);
    }
  }

  goesOn(index, sequence, start) {
    const { seconds, messages, producers } = this.options;
    if (!this.complete) return false;
    if (Number(seconds)) return Date.now() - start < Number(seconds) * 1000;
    const share = Math.floor(messages / producers) + (index < messages % producers ? 1 : 0);
    return sequence < share;
  }

  async sendUntilAcked(id) {
    const message = new Message(this.options.topic, '', makeBody(id, Number(this.options.size)));
    message.keys = [ id ];
    const deadline = Date.now() + Number(this.options['give-up']) * 1000;
    for (let attempt = 1; attempt === 1 || (this.complete && Date.now() < deadline); attempt++) {
      if (await this.sendOnce(id, attempt, message)) return;
      await sleep(PAUSE_AFTER_ERROR_MS);
    }
    console.error(`gave up ${id}`);
    this.complete = false;
  }

  async sendOnce(id, attempt, message) {
    this.history.write({ e: 'start', id, a: attempt });
    try {
      const result = await this.producer.send(message);
      const acked = result.sendStatus === 'SEND_OK';
      this.history.write({
        e: 'end', id, a: attempt, s: acked ? 'OK' : result.sendStatus,
        q: Number(result.messageQueue.queueId), o: Number(result.queueOffset), m: result.msgId,
      });
      if (acked) {
        this.progress.acked++;
        this.wanted.add(id);
      }
      return acked;
    } catch (error) {
      if (this.progress.errors++ < 20) console.error(`${id} attempt ${attempt}: ${error.message}`);
      this.history.write({ e: 'end', id, a: attempt, s: error.name });
      return false;
    }
  }
}

class Consume {
  constructor(options, history, progress) {
    Object.assign(this, { options, history, progress, name: `${options.name}.c`, received: new Set(), last: Date.now() });
    // The library consumes each queue one message after the other.
    history.write({ e: 'consumer', c: this.name, group: options.group, ordered: true });
    this.consumer = new Consumer({
      nameSrv: options.namesrv, httpclient: {}, logger,
      consumerGroup: options.group, instanceName: this.name, consumeFromWhere: 'CONSUME_FROM_FIRST_OFFSET',
    });
    this.consumer.on('error', error => console.error('consumer:', error.message));
    this.consumer.subscribe(options.topic, options.subscribe, async message => this.note(message));
  }

  note(message) {
    const id = message.keys;
    const first = message.retryTopic;
    const topic = first && first === message.topic ? `%RETRY%${this.options.group}` : message.topic;
    const event = {
      e: 'recv', id, c: this.name, tp: topic, q: Number(message.queueId), o: Number(message.queueOffset),
      r: message.reconsumeTimes,
    };
    if (!isIntact(message.body, id)) event.intact = false;
    this.history.write(event);
    this.progress.received++;
    this.received.add(id);
    this.last = Date.now();
  }

  async drain(wanted) {
    this.last = Date.now();
    while (!wanted.isIn(this.received)) {
      if (Date.now() - this.last > Number(this.options['idle-timeout']) * 1000) {
        console.error('nothing received for the idle time-out, and not everything wanted is there');
        return false;
      }
      await sleep(20);
    }
    return true;
  }
}

async function main() {
  const [ subcommand, ...args ] = process.argv.slice(2);
  if (![ 'load', 'consume', 'pair' ].includes(subcommand)) throw new Error('a subcommand is needed: load, consume or pair');
  const options = parse(args);
  const history = new History(options.history);
  const progress = new Progress();
  const load = subcommand === 'consume' ? null : new Load(options, history, progress);
  const consume = subcommand === 'load' ? null : new Consume(options, history, progress);
  if (load) await load.producer.ready();
  if (consume) await consume.consumer.ready();
  progress.start();
  let complete = load ? await load.run() : true;
  if (consume) {
    const given = Wanted.from(options);
    complete = await consume.drain(given.isGiven() || !load ? given : new Wanted(0, load.wanted)) && complete;
    await consume.consumer.close();
  }
  if (load) await load.producer.close();
  history.close();
  progress.done();
  return complete ? 0 : 3;
}

main().then(code => process.exit(code), error => {
  console.error(error);
  process.exit(1);
});
