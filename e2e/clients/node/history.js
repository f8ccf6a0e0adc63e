'use strict';
const fs = require('fs');

/** JSON lines, one event a line; e2e/src/history.rs reads them and says what each field means. */
class History {
  constructor(path) {
    this.file = fs.openSync(path, 'w');
    this.lines = [];
    this.startWallUs = Date.now() * 1000;
    this.startMonoNs = process.hrtime.bigint();
    this.timer = setInterval(() => this.flush(), 1000);
  }

  /** The wall clock at the start plus the monotonic clock since. */
  nowUs() {
    return this.startWallUs + Number((process.hrtime.bigint() - this.startMonoNs) / 1000n);
  }

  write(event) {
    event.t = this.nowUs();
    this.lines.push(JSON.stringify(event));
  }

  flush() {
    if (this.lines.length) fs.writeSync(this.file, this.lines.join('\n') + '\n');
    this.lines = [];
  }

  close() {
    clearInterval(this.timer);
    this.flush();
    fs.closeSync(this.file);
  }
}

/** The figures that the harness follows on standard output. */
class Progress {
  constructor() {
    Object.assign(this, { acked: 0, received: 0, errors: 0 });
  }

  start() {
    console.log('ready');
    setInterval(() => console.log(`progress ${this.figures()}`), 100).unref();
  }

  done() {
    console.log(`done ${this.figures()}`);
  }

  figures() {
    return `acked ${this.acked} received ${this.received} errors ${this.errors}`;
  }
}

/** What a consumer must have received before it may stop: so many different messages, or these. */
class Wanted {
  constructor(count, ids) {
    Object.assign(this, { count, ids });
  }

  static from(options) {
    const ids = new Set();
    if (options['expect-acked']) {
      for (const line of fs.readFileSync(options['expect-acked'], 'utf8').split('\n')) {
        if (line.startsWith('{"e":"end"') && line.includes('"s":"OK"')) ids.add(JSON.parse(line).id);
      }
    }
    return new Wanted(Number(options.expect), ids);
  }

  isGiven() {
    return this.count > 0 || this.ids.size > 0;
  }

  isIn(received) {
    if (received.size < this.count) return false;
    for (const id of this.ids) {
      if (!received.has(id)) return false;
      this.ids.delete(id);
    }
    return true;
  }
}

const CRC_TABLE = Array.from({ length: 256 }, (_, n) => {
  for (let bit = 0; bit < 8; bit++) n = n & 1 ? 0xEDB88320 ^ (n >>> 1) : n >>> 1;
  return n >>> 0;
});

function crc32Hex(bytes) {
  let crc = 0xFFFFFFFF;
  for (const byte of bytes) crc = CRC_TABLE[(crc ^ byte) & 0xFF] ^ (crc >>> 8);
  return ((crc ^ 0xFFFFFFFF) >>> 0).toString(16).padStart(8, '0');
}

/** A body is `crc:id:filler`: eight hex digits of the CRC-32 of all that follows the first colon. */
function makeBody(id, size) {
  let text = `00000000:${id}:`;
  text += 'abcdefghijklmnopqrstuvwxyz'.repeat(Math.ceil(size / 26)).slice(0, Math.max(0, size - text.length));
  const body = Buffer.from(text, 'ascii');
  body.write(crc32Hex(body.subarray(9)), 0, 'ascii');
  return body;
}

function isIntact(body, id) {
  const head = `:${id}:`;
  return Boolean(id) && body.length >= 8 + head.length && body.toString('ascii', 8, 8 + head.length) === head &&
    body.toString('ascii', 0, 8) === crc32Hex(body.subarray(9));
}

module.exports = { History, Progress, Wanted, makeBody, isIntact };
