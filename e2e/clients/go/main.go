// One program over the official Go client. Subcommands: load, consume, pair. The same flags, standard output and
// history as the Java program (e2e/clients/java); the topic must exist.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/apache/rocketmq-client-go/v2/rlog"
)

// Options of all subcommands; a flag that a subcommand has no use for is ignored.
type Options struct {
	namesrv, topic, group, name, history string
	mode, listen, subscribe, expectAcked string
	producers, size, batch, inFlight     int
	messages, seconds, rate, expect      int64
	giveUp, idleTimeout                  time.Duration
	// Closed at the end of standard input; nil where that means nothing.
	stdinEnded chan struct{}
}

func main() {
	if len(os.Args) < 2 {
		fail("a subcommand is needed: load, consume or pair")
	}
	// The library writes its own log to standard output, which belongs to the harness.
	rlog.SetLogLevel("fatal")
	options := parse(os.Args[2:])
	history, err := openHistory(options.history)
	if err != nil {
		fail(err.Error())
	}
	progress := &Progress{}
	complete, err := run(os.Args[1], options, history, progress)
	if closeErr := history.close(); err == nil {
		err = closeErr
	}
	if err != nil {
		fail(err.Error())
	}
	progress.done()
	if !complete {
		os.Exit(3)
	}
}

func run(subcommand string, options Options, history *History, progress *Progress) (bool, error) {
	produces := subcommand == "load" || subcommand == "pair"
	consumes := subcommand == "consume" || subcommand == "pair"
	if !produces && !consumes {
		return false, fmt.Errorf("unknown subcommand %s: load, consume or pair", subcommand)
	}
	var consume *Consume
	var load *Load
	var err error
	if consumes {
		if consume, err = startConsume(options, history, progress); err != nil {
			return false, err
		}
	}
	if produces {
		if load, err = startLoad(options, history, progress); err != nil {
			return false, err
		}
	}
	progress.start()
	complete := true
	if produces {
		complete = load.run()
	}
	if consumes {
		wanted, err := wantedFrom(options)
		if err != nil {
			return false, err
		}
		if produces && wanted.isEmpty() {
			wanted.ids = load.wanted
		}
		complete = consume.drain(wanted) && complete
		if err := consume.consumer.Shutdown(); err != nil {
			return false, err
		}
	}
	if produces {
		if err := load.producer.Shutdown(); err != nil {
			return false, err
		}
	}
	return complete, nil
}

func parse(args []string) Options {
	var o Options
	flags := flag.NewFlagSet("client", flag.ExitOnError)
	flags.StringVar(&o.namesrv, "namesrv", "", "name server, host:port")
	flags.StringVar(&o.topic, "topic", "", "topic")
	flags.StringVar(&o.group, "group", "e2e-group", "consumer group")
	flags.StringVar(&o.name, "name", "p", "message ids begin with it")
	flags.StringVar(&o.history, "history", "", "file for the history")
	flags.StringVar(&o.mode, "mode", "sync", "sync, async, oneway or batch")
	flags.StringVar(&o.listen, "listen", "orderly", "orderly or concurrent")
	flags.StringVar(&o.subscribe, "subscribe", "*", "tag expression")
	flags.StringVar(&o.expectAcked, "expect-acked", "", "consume until all that this history acknowledges was received")
	flags.IntVar(&o.producers, "producers", 4, "producing goroutines")
	flags.IntVar(&o.size, "size", 1024, "bytes of a body")
	flags.IntVar(&o.batch, "batch", 16, "messages in a batch")
	flags.IntVar(&o.inFlight, "in-flight", 64, "asynchronous sends on their way, for each producer")
	flags.Int64Var(&o.messages, "messages", 0, "messages of all producers together")
	flags.Int64Var(&o.seconds, "seconds", 0, "send for so long instead")
	flags.Int64Var(&o.rate, "rate", 0, "messages a second of all producers together; 0: as fast as it goes")
	flags.Int64Var(&o.expect, "expect", 0, "consume until so many different messages were received")
	giveUp := flags.Int64("give-up", 60, "seconds after which a message is not tried again")
	idle := flags.Int64("idle-timeout", 60, "seconds without a message after which consuming has failed")
	untilStdinEnds := flags.String("until-stdin-ends", "false", "true: send until standard input ends instead")
	_ = flags.Parse(args)
	if *untilStdinEnds == "true" {
		o.stdinEnded = make(chan struct{})
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin)
			close(o.stdinEnded)
		}()
	}
	o.giveUp = time.Duration(*giveUp) * time.Second
	o.idleTimeout = time.Duration(*idle) * time.Second
	if o.namesrv == "" || o.topic == "" || o.history == "" {
		fail("--namesrv, --topic and --history are needed")
	}
	return o
}

func fail(message string) {
	fmt.Fprintln(os.Stderr, "error: "+message)
	os.Exit(1)
}
