package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	rocketmq "github.com/apache/rocketmq-client-go/v2"
	"github.com/apache/rocketmq-client-go/v2/primitive"
	"github.com/apache/rocketmq-client-go/v2/producer"
)

// Attempts that the library makes by itself inside one send, unseen by us: its default.
const hiddenRetries = 3

const pauseAfterError = 10 * time.Millisecond

// Load is the producing side: goroutines over one producer, each sending a message again until it is acknowledged.
type Load struct {
	options  Options
	history  *History
	progress *Progress
	producer rocketmq.Producer
	mutex    sync.Mutex
	wanted   map[string]bool
	complete atomic.Bool
}

// outgoing is a message on its way, with what is needed to send it again.
type outgoing struct {
	id       string
	message  *primitive.Message
	attempt  int
	deadline time.Time
}

func startLoad(options Options, history *History, progress *Progress) (*Load, error) {
	p, err := rocketmq.NewProducer(
		producer.WithNameServer(primitive.NamesrvAddr{options.namesrv}),
		producer.WithGroupName(options.name+"-producers"),
		producer.WithInstanceName(options.name+"-p"),
		producer.WithRetry(hiddenRetries),
	)
	if err != nil {
		return nil, err
	}
	load := &Load{options: options, history: history, progress: progress, producer: p, wanted: map[string]bool{}}
	load.complete.Store(true)
	return load, p.Start()
}

// run sends everything; false when a message was given up.
func (l *Load) run() bool {
	var all sync.WaitGroup
	for i := 0; i < l.options.producers; i++ {
		all.Add(1)
		sender := &sender{load: l, name: fmt.Sprintf("%s.%d", l.options.name, i), index: int64(i), start: time.Now()}
		go func() {
			defer all.Done()
			sender.run()
		}()
	}
	all.Wait()
	return l.complete.Load()
}

func (l *Load) want(id string) {
	l.mutex.Lock()
	l.wanted[id] = true
	l.mutex.Unlock()
}

// sender is one producer of the history: sequential, except in asynchronous mode.
type sender struct {
	load     *Load
	name     string
	index    int64
	sequence int64
	start    time.Time
}

func (s *sender) run() {
	s.load.history.write(`"e":"producer","p":"%s","hidden":%d`, s.name, hiddenRetries)
	switch s.load.options.mode {
	case "async":
		s.runAsync()
	case "oneway":
		s.runOneway()
	case "batch":
		s.runBatches(s.load.options.batch)
	default:
		s.runBatches(1)
	}
}

// runBatches sends synchronously; a batch of one is an ordinary send.
func (s *sender) runBatches(size int) {
	for {
		var batch []*outgoing
		var messages []*primitive.Message
		for len(batch) < size {
			next := s.next()
			if next == nil {
				break
			}
			batch = append(batch, next)
			messages = append(messages, next.message)
		}
		if len(batch) == 0 {
			return
		}
		for acked := false; !acked && s.mayTry(batch[0]); {
			for _, one := range batch {
				s.begin(one)
			}
			result, err := s.load.producer.SendSync(context.Background(), messages...)
			acked = err == nil
			for place, one := range batch {
				acked = s.end(one, result, err, place) && acked
			}
			if !acked {
				time.Sleep(pauseAfterError)
			}
		}
	}
}

func (s *sender) runOneway() {
	for next := s.next(); next != nil; next = s.next() {
		s.begin(next)
		status := "ONEWAY"
		if err := s.load.producer.SendOneWay(context.Background(), next.message); err != nil {
			status = errorClass(err)
			s.load.progress.errors.Add(1)
		}
		s.load.history.write(`"e":"end","id":"%s","a":%d,"s":"%s"`, next.id, next.attempt, status)
		s.load.want(next.id)
	}
}

func (s *sender) runAsync() {
	window := make(chan struct{}, s.load.options.inFlight)
	var all sync.WaitGroup
	for next := s.next(); next != nil; next = s.next() {
		window <- struct{}{}
		all.Add(1)
		s.sendAsync(next, func() {
			<-window
			all.Done()
		})
	}
	all.Wait()
}

// sendAsync sends until the message is acknowledged or given up, and then calls done, from whichever goroutine.
func (s *sender) sendAsync(next *outgoing, done func()) {
	if !s.mayTry(next) {
		done()
		return
	}
	s.begin(next)
	finish := func(result *primitive.SendResult, err error) {
		if s.end(next, result, err, 0) {
			done()
			return
		}
		go func() {
			time.Sleep(pauseAfterError)
			s.sendAsync(next, done)
		}()
	}
	err := s.load.producer.SendAsync(context.Background(),
		func(_ context.Context, result *primitive.SendResult, err error) { finish(result, err) }, next.message)
	if err != nil {
		finish(nil, err)
	}
}

// next is the next message, at its time where a rate was asked for; nil when this producer has made its share.
func (s *sender) next() *outgoing {
	o := s.load.options
	if !s.load.complete.Load() {
		return nil
	}
	producers := int64(o.producers)
	if o.stdinEnded != nil {
		select {
		case <-o.stdinEnded:
			return nil
		default:
		}
	} else if o.seconds > 0 {
		if time.Since(s.start) >= time.Duration(o.seconds)*time.Second {
			return nil
		}
	} else {
		share := o.messages / producers
		if s.index < o.messages%producers {
			share++
		}
		if s.sequence >= share {
			return nil
		}
	}
	if o.rate > 0 {
		due := time.Duration(s.sequence) * time.Second * time.Duration(producers) / time.Duration(o.rate)
		time.Sleep(time.Until(s.start.Add(due)))
	}
	id := fmt.Sprintf("%s-%d", s.name, s.sequence)
	s.sequence++
	message := primitive.NewMessage(o.topic, makeBody(id, o.size)).WithKeys([]string{id})
	return &outgoing{id: id, message: message, deadline: time.Now().Add(o.giveUp)}
}

func (s *sender) mayTry(o *outgoing) bool {
	if o.attempt > 0 && (time.Now().After(o.deadline) || !s.load.complete.Load()) {
		fmt.Fprintf(os.Stderr, "gave up %s after %d attempts\n", o.id, o.attempt)
		// A broker that doesn't come back ends the whole load, or each further message would wait as long.
		s.load.complete.Store(false)
		return false
	}
	return true
}

func (s *sender) begin(o *outgoing) {
	o.attempt++
	s.load.history.write(`"e":"start","id":"%s","a":%d`, o.id, o.attempt)
}

// end notes an answer; only SendOK acknowledges. place is the message's place in its batch.
func (s *sender) end(o *outgoing, result *primitive.SendResult, err error, place int) bool {
	if err != nil {
		if s.load.progress.errors.Add(1) <= 20 {
			fmt.Fprintf(os.Stderr, "%s attempt %d: %v\n", o.id, o.attempt, err)
		}
		s.load.history.write(`"e":"end","id":"%s","a":%d,"s":"%s"`, o.id, o.attempt, errorClass(err))
		return false
	}
	status := [...]string{"OK", "FLUSH_DISK_TIMEOUT", "FLUSH_SLAVE_TIMEOUT", "SLAVE_NOT_AVAILABLE", "UNKNOWN"}[result.Status]
	offsetIDs := strings.Split(result.OffsetMsgID, ",")
	if place < len(offsetIDs) {
		offsetIDs = offsetIDs[place:]
	}
	s.load.history.write(`"e":"end","id":"%s","a":%d,"s":"%s","q":%d,"o":%d,"m":"%s"`, o.id, o.attempt, status,
		result.MessageQueue.QueueId, result.QueueOffset+int64(place), offsetIDs[0])
	if result.Status != primitive.SendOK {
		return false
	}
	s.load.progress.acked.Add(1)
	s.load.want(o.id)
	return true
}

func errorClass(err error) string {
	for errors.Unwrap(err) != nil {
		err = errors.Unwrap(err)
	}
	if errors.Is(err, context.DeadlineExceeded) || strings.Contains(err.Error(), "timeout") {
		return "Timeout"
	}
	return strings.TrimPrefix(reflect.TypeOf(err).String(), "*")
}
