package main

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// History writes JSON lines, one event a line; e2e/src/history.rs reads it and says what each field means.
type History struct {
	mutex  sync.Mutex
	file   *os.File
	out    *bufio.Writer
	failed error
	closed chan struct{}
}

var started = time.Now()
var startedWallUs = started.UnixMicro()

// nowUs is the wall clock at the start plus the monotonic clock since.
func nowUs() int64 {
	return startedWallUs + time.Since(started).Microseconds()
}

func openHistory(path string) (*History, error) {
	file, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	h := &History{file: file, out: bufio.NewWriterSize(file, 1<<16), closed: make(chan struct{})}
	go h.flushEachSecond()
	return h, nil
}

// write adds one event; `fields` is the JSON object without its braces, the time is added here.
func (h *History) write(format string, args ...interface{}) {
	line := fmt.Sprintf(format, args...)
	h.mutex.Lock()
	defer h.mutex.Unlock()
	if _, err := fmt.Fprintf(h.out, "{%s,\"t\":%d}\n", line, nowUs()); err != nil {
		h.failed = err
	}
}

func (h *History) flushEachSecond() {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-h.closed:
			return
		case <-ticker.C:
			h.mutex.Lock()
			if err := h.out.Flush(); err != nil {
				h.failed = err
			}
			h.mutex.Unlock()
		}
	}
}

func (h *History) close() error {
	close(h.closed)
	h.mutex.Lock()
	defer h.mutex.Unlock()
	if err := h.out.Flush(); err != nil {
		return err
	}
	if err := h.file.Close(); err != nil {
		return err
	}
	return h.failed
}

// Progress holds the figures that the harness follows on standard output.
type Progress struct {
	acked, received, errors atomic.Int64
}

func (p *Progress) start() {
	fmt.Println("ready")
	go func() {
		for range time.Tick(100 * time.Millisecond) {
			fmt.Println("progress " + p.figures())
		}
	}()
}

func (p *Progress) done() {
	fmt.Println("done " + p.figures())
}

func (p *Progress) figures() string {
	return fmt.Sprintf("acked %d received %d errors %d", p.acked.Load(), p.received.Load(), p.errors.Load())
}

// Wanted is what a consumer must have received before it may stop: so many different messages, or these.
type Wanted struct {
	count int64
	ids   map[string]bool
}

func wantedFrom(options Options) (*Wanted, error) {
	wanted := &Wanted{count: options.expect, ids: map[string]bool{}}
	if options.expectAcked == "" {
		return wanted, nil
	}
	file, err := os.Open(options.expectAcked)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		line := lines.Text()
		if strings.HasPrefix(line, `{"e":"end"`) && strings.Contains(line, `"s":"OK"`) {
			_, rest, _ := strings.Cut(line, `"id":"`)
			id, _, _ := strings.Cut(rest, `"`)
			wanted.ids[id] = true
		}
	}
	return wanted, lines.Err()
}

func (w *Wanted) isEmpty() bool {
	return w.count == 0 && len(w.ids) == 0
}
