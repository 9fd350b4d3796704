package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"syscall"
	"time"
)

// ioTimeout is how long an answer may stand still before it counts as lost.
const ioTimeout = 30 * time.Second

// connection is one HTTP/1.1 connection that blocks its thread, as wrk's do not:
// reads then wake the thread straight from the kernel, without Go's poller in
// between, which would add to every time that is measured.
type connection struct {
	file *os.File
	fd   int
	buf  []byte // of the answer; grows to the largest
	n    int    // bytes of it that are filled
}

func dial(addr string) (*connection, error) {
	conn, err := net.DialTimeout("tcp", addr, ioTimeout)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	file, err := conn.(*net.TCPConn).File() // a copy
	if err != nil {
		return nil, err
	}
	c := &connection{file: file, fd: int(file.Fd()), buf: make([]byte, 64<<10)}
	limit := syscall.NsecToTimeval(int64(ioTimeout))
	err = errors.Join(
		syscall.SetNonblock(c.fd, false),
		syscall.SetsockoptTimeval(c.fd, syscall.SOL_SOCKET, syscall.SO_RCVTIMEO, &limit),
		syscall.SetsockoptTimeval(c.fd, syscall.SOL_SOCKET, syscall.SO_SNDTIMEO, &limit),
	)
	return c, err
}

func (c *connection) close() error { return c.file.Close() }

func (c *connection) write(b []byte) error {
	for len(b) > 0 {
		n, err := syscall.Write(c.fd, b)
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			return fmt.Errorf("write: %w", err)
		}
		b = b[n:]
	}
	return nil
}

// fill reads more of the answer into the buffer.
func (c *connection) fill() error {
	if c.n == len(c.buf) {
		c.buf = append(c.buf, make([]byte, len(c.buf))...)
	}
	for {
		n, err := syscall.Read(c.fd, c.buf[c.n:])
		switch {
		case err == syscall.EINTR:
			continue
		case err != nil:
			return fmt.Errorf("read: %w", err)
		case n == 0:
			return errors.New("read: the connection was closed")
		}
		c.n += n
		return nil
	}
}

// answer is what came for one request.
type answer struct {
	status int
	body   []byte // valid until the next request
	events int    // of a stream
	first  time.Time
}

// expectation is what a right answer holds.
type expectation struct {
	contains string
	events   int // 0: not a stream
}

// roundTrip sends a request and reads its answer to the end. The time of the
// second event, the first with content, is noted; onEvents hears how many
// events came with each read.
func (c *connection) roundTrip(request []byte, stream bool, onEvents func(int)) (answer, error) {
	var a answer
	if err := c.write(request); err != nil {
		return a, err
	}
	c.n = 0
	head := -1
	for head < 0 {
		if err := c.fill(); err != nil {
			return a, err
		}
		head = bytes.Index(c.buf[:c.n], []byte("\r\n\r\n"))
	}
	length, err := a.readHead(c.buf[:head])
	if err != nil {
		return a, err
	}
	if length >= 0 {
		for c.n < head+4+length {
			if err := c.fill(); err != nil {
				return a, err
			}
		}
		if c.n > head+4+length {
			return a, errors.New("bytes after the answer")
		}
		a.body = c.buf[head+4 : c.n]
		return a, nil
	}
	return a, c.readChunked(&a, head+4, stream, onEvents)
}

// readHead reads status and length, -1 for a chunked body.
func (a *answer) readHead(head []byte) (int, error) {
	if len(head) < 12 || string(head[:9]) != "HTTP/1.1 " {
		return 0, errors.New("not an HTTP/1.1 answer")
	}
	var err error
	if a.status, err = strconv.Atoi(string(head[9:12])); err != nil {
		return 0, errors.New("no status")
	}
	for line := range bytes.SplitSeq(head, []byte("\r\n")) {
		name, value, _ := bytes.Cut(line, []byte(": "))
		switch {
		case bytes.EqualFold(name, []byte("content-length")):
			return strconv.Atoi(string(value))
		case bytes.EqualFold(name, []byte("transfer-encoding")):
			return -1, nil
		}
	}
	return 0, errors.New("an answer without length")
}

// readChunked takes the chunks' framing out, in place.
func (c *connection) readChunked(a *answer, from int, stream bool, onEvents func(int)) error {
	r, w := from, from // the body is buf[from:w], what was not looked at begins at r
	for {
		size, next, ok := chunkHead(c.buf[r:c.n])
		if !ok || c.n < r+next+size+2 {
			if next < 0 {
				return errors.New("a bad chunk")
			}
			a.note(c.buf[from:w], stream, onEvents)
			if err := c.fill(); err != nil {
				return err
			}
			continue
		}
		w += copy(c.buf[w:], c.buf[r+next:r+next+size])
		r += next + size + 2
		if size == 0 {
			a.note(c.buf[from:w], stream, onEvents)
			if r != c.n {
				return errors.New("bytes after the answer")
			}
			a.body = c.buf[from:w]
			return nil
		}
	}
}

// chunkHead reads a chunk's size; next is where its data begins, negative when
// b is no chunk.
func chunkHead(b []byte) (size, next int, ok bool) {
	end := bytes.Index(b, []byte("\r\n"))
	if end < 0 {
		return 0, 0, false
	}
	n, err := strconv.ParseUint(string(b[:end]), 16, 31)
	if err != nil {
		return 0, -1, false
	}
	return int(n), end + 2, true
}

// note counts the events that are complete in the body so far.
func (a *answer) note(body []byte, stream bool, onEvents func(int)) {
	if !stream {
		return
	}
	n := bytes.Count(body[len(a.body):], []byte("\n\n"))
	if n == 0 {
		return
	}
	a.body = body[:bytes.LastIndex(body, []byte("\n\n"))+2]
	if a.events < 2 && a.events+n >= 2 {
		a.first = time.Now()
	}
	a.events += n
	onEvents(n)
}

// check tells what is wrong with the answer.
func (e *expectation) check(a *answer) error {
	switch {
	case a.status != 200:
		return fmt.Errorf("status %d: %.300s", a.status, a.body)
	case e.events != a.events:
		return fmt.Errorf("%d events, want %d", a.events, e.events)
	case e.events > 0 && !bytes.HasSuffix(a.body, []byte("data: [DONE]\n\n")):
		return errors.New("a stream without its end")
	case !bytes.Contains(a.body, []byte(e.contains)):
		return fmt.Errorf("%q is missing in %.300s", e.contains, a.body)
	}
	return nil
}
