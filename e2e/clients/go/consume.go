package main

import (
	"bytes"
	"context"
	"fmt"
	"hash/crc32"
	"os"
	"sync"
	"time"

	rocketmq "github.com/apache/rocketmq-client-go/v2"
	"github.com/apache/rocketmq-client-go/v2/consumer"
	"github.com/apache/rocketmq-client-go/v2/primitive"
)

// Consume is the consuming side: a push consumer, from the first offset for a new group.
type Consume struct {
	options  Options
	history  *History
	progress *Progress
	consumer rocketmq.PushConsumer
	name     string
	mutex    sync.Mutex
	received map[string]bool
	last     time.Time
}

func startConsume(options Options, history *History, progress *Progress) (*Consume, error) {
	c := &Consume{options: options, history: history, progress: progress, name: options.name + ".c",
		received: map[string]bool{}, last: time.Now()}
	orderly := options.listen == "orderly"
	// Listeners run side by side otherwise: what they note has no order to keep.
	history.write(`"e":"consumer","c":"%s","group":"%s","ordered":%t`, c.name, options.group, orderly)
	var err error
	c.consumer, err = rocketmq.NewPushConsumer(
		consumer.WithNameServer(primitive.NamesrvAddr{options.namesrv}),
		consumer.WithGroupName(options.group),
		consumer.WithInstance(c.name),
		consumer.WithConsumeFromWhere(consumer.ConsumeFromFirstOffset),
		consumer.WithConsumerOrder(orderly),
	)
	if err != nil {
		return nil, err
	}
	selector := consumer.MessageSelector{Type: consumer.TAG, Expression: options.subscribe}
	err = c.consumer.Subscribe(options.topic, selector,
		func(_ context.Context, messages ...*primitive.MessageExt) (consumer.ConsumeResult, error) {
			for _, message := range messages {
				c.note(message)
			}
			return consumer.ConsumeSuccess, nil
		})
	if err != nil {
		return nil, err
	}
	return c, c.consumer.Start()
}

func (c *Consume) note(message *primitive.MessageExt) {
	id := message.GetKeys()
	topic := message.Topic
	// The library shows a retried message under its first topic, but with the retry topic's queue and offset.
	if first := message.GetProperty(primitive.PropertyRetryTopic); first != "" && first == topic {
		topic = "%RETRY%" + c.options.group
	}
	broken := ""
	if !isIntact(message.Body, id) {
		broken = `,"intact":false`
	}
	c.history.write(`"e":"recv","id":"%s","c":"%s","tp":"%s","q":%d,"o":%d,"r":%d%s`, id, c.name, topic,
		message.Queue.QueueId, message.QueueOffset, message.ReconsumeTimes, broken)
	c.progress.received.Add(1)
	c.mutex.Lock()
	c.received[id] = true
	c.last = time.Now()
	c.mutex.Unlock()
}

// drain waits until everything wanted was received; false when nothing came for the idle time-out before that.
func (c *Consume) drain(wanted *Wanted) bool {
	c.mutex.Lock()
	c.last = time.Now()
	c.mutex.Unlock()
	for !c.has(wanted) {
		c.mutex.Lock()
		idle := time.Since(c.last)
		c.mutex.Unlock()
		if idle > c.options.idleTimeout {
			fmt.Fprintf(os.Stderr, "nothing received for %v, and not everything wanted is there\n", idle)
			return false
		}
		time.Sleep(20 * time.Millisecond)
	}
	return true
}

func (c *Consume) has(wanted *Wanted) bool {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if int64(len(c.received)) < wanted.count {
		return false
	}
	for id := range wanted.ids {
		if !c.received[id] {
			return false
		}
		delete(wanted.ids, id)
	}
	return true
}

// makeBody is `crc:id:filler`: eight hex digits of the CRC-32 of all that follows the first colon.
func makeBody(id string, size int) []byte {
	body := []byte("00000000:" + id + ":")
	for letter := 0; len(body) < size; letter++ {
		body = append(body, byte('a'+(letter+len(id))%26))
	}
	copy(body, fmt.Sprintf("%08x", crc32.ChecksumIEEE(body[9:])))
	return body
}

func isIntact(body []byte, id string) bool {
	head := []byte(":" + id + ":")
	if id == "" || len(body) < 8+len(head) || !bytes.Equal(body[8:8+len(head)], head) {
		return false
	}
	return string(body[:8]) == fmt.Sprintf("%08x", crc32.ChecksumIEEE(body[9:]))
}
