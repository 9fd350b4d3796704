package adapter

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/tetratelabs/proxy-wasm-go-sdk/proxywasm"
	"github.com/tetratelabs/proxy-wasm-go-sdk/proxywasm/types"

	"github.com/weirproxy/weir/dialect/openai"
	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/wasm/bridge"
)

// maxHeld bounds how much of a response waits for its first content, in bytes:
// one that says so much is not stalled.
const maxHeld = 64 << 10

// form is how a response is metered.
type form uint8

const (
	unmetered form = iota
	undecided      // its body has not begun
	jsonBody
	eventStream
	replaced // the client gets weir's words and none of the backend's
)

// response is the attempt's response.
type response struct {
	form form
	held bool // the headers, and the body so far, wait in the host
	seen int  // bytes of the held body that were read
	// What the client gets in the place of the held body, where that differs.
	heldOut     []byte
	heldDiffers bool

	json   *openai.Meter // of a jsonBody
	stream *stream       // of an eventStream
	heard  bool          // something came since the last tick
	ended  bool          // nothing more will come
	usage  ai.AdapterUsage
	state  []byte // the filter state that was set last
	spare  []byte
}

func (a *attempt) responseHeaders(end bool) types.Action {
	if a.refused || a.target == nil {
		return types.ActionContinue // weir's own refusal passes
	}
	status, err := proxywasm.GetHttpResponseHeader(":status")
	if err != nil {
		return a.refuse(fmt.Errorf("read :status: %w", err))
	}
	setState(stateAttempts, a.noteEnd(status))
	if blamesWeir(status) {
		return a.replaceAnswer(ai.ReasonBackendRefused, backendRefused, end)
	}
	if status != "200" || end {
		return types.ActionContinue
	}
	if !a.Stream {
		a.form = undecided // the first byte of the body tells
		return types.ActionContinue
	}
	switch a.form = responseForm(); a.form {
	case unmetered:
		return types.ActionContinue
	case jsonBody:
		a.json = newJSONMeter()
		return types.ActionContinue
	}
	a.stream = &stream{strip: a.StripUsage}
	if err := proxywasm.RemoveHttpResponseHeader("content-length"); err != nil {
		return a.refuse(fmt.Errorf("remove content-length: %w", err))
	}
	a.held = true
	return types.ActionPause
}

// noteEnd is the attempts with this one's status and, behind it, for how many
// milliseconds the backend asks to be left alone.
func (a *attempt) noteEnd(status string) []byte {
	note := append([]byte(a.attempts), status...)
	if !a.target.TellsLimits && status == "200" {
		return note // servers of one's own tell nothing about limits
	}
	if rest := openai.Rest(status, time.Now(), responseHeader); rest > 0 {
		note = append(note, ':')
		note = strconv.AppendInt(note, rest.Milliseconds(), 10)
	}
	return note
}

func responseHeader(name string) string {
	value, err := proxywasm.GetHttpResponseHeader(name)
	if err != nil {
		return "" // it is absent
	}
	return value
}

// blamesWeir tells of a status with which a backend refuses weir, not the
// client: its credential (401, 403, 407), its balance (402), the real model's
// name (404), or a redirection, which a client could follow to the backend. The
// client would take it for its own fault.
func blamesWeir(status string) bool {
	switch status {
	case "401", "402", "403", "404", "407":
		return true
	}
	return status != "" && status[0] == '3'
}

// What a client is told that gets weir's words and none of the backend's.
const (
	backendRefused = "The backend of this model refused the gateway's request."
	emptyStream    = "The backend's answer ended before it had begun."
	silentStream   = "The backend said nothing for too long."
)

// replaceAnswer makes a 502 of the backend's answer: a failure like others, for
// which the next target is tried. An answer without a body stays without one.
func (a *attempt) replaceAnswer(reason ai.Reason, text string, end bool) types.Action {
	headers := [][2]string{{":status", strconv.Itoa(reason.Answer().Status)}}
	if !end {
		a.form = replaced
		a.heldOut = openai.ErrorBody(reason, text, "")
		headers = append(headers, [2]string{"content-type", "application/json"}, [2]string{"content-length", strconv.Itoa(len(a.heldOut))})
	}
	for _, h := range headers {
		if err := proxywasm.ReplaceHttpResponseHeader(h[0], h[1]); err != nil {
			return a.refuse(fmt.Errorf("replace %s: %w", h[0], err))
		}
	}
	return types.ActionContinue
}

// responseForm reads from the headers how the body is to be metered. An event
// stream that is compressed cannot be: it passes as it is.
func responseForm() form {
	contentType, err := proxywasm.GetHttpResponseHeader("content-type")
	if err != nil {
		return unmetered
	}
	mediaType, _, _ := strings.Cut(contentType, ";")
	switch strings.ToLower(strings.TrimSpace(mediaType)) {
	case "application/json":
		return jsonBody
	case "text/event-stream":
		encoding, err := proxywasm.GetHttpResponseHeader("content-encoding")
		if err == nil && encoding != "" && encoding != "identity" {
			proxywasm.LogErrorf("a response in content-encoding %.20q is not metered", encoding)
			return unmetered
		}
		return eventStream
	}
	return unmetered
}

func (a *attempt) responseBody(size int, end bool) types.Action {
	if a.refused {
		return types.ActionContinue
	}
	switch a.form {
	case undecided:
		return a.begin(size, end)
	case replaced:
		// The whole of it with the first piece; no other piece leaves anything.
		replaceBody(a.heldOut)
		a.heldOut = nil
	case jsonBody:
		return a.meterJSON(size, end)
	case eventStream:
		if a.held {
			return a.hold(size, end)
		}
		return a.passOn(size, end)
	}
	return types.ActionContinue
}

func (a *attempt) responseTrailers() types.Action {
	// The last piece of the body came without the end of the stream. Here the
	// body can no longer be changed: of an event that was withheld and never
	// ended, the client gets nothing, as a reader of event streams expects.
	switch {
	case a.refused:
	case a.form == jsonBody:
		return a.endJSON()
	case a.form == eventStream:
		a.ended = true
		a.stream.feed(nil, true)
		a.noteUsage()
		if a.Stream && !a.stream.whole() {
			return a.cut()
		}
		a.held = false
	}
	return types.ActionContinue
}

// begin finds how to meter an answer to a request that asked for no stream. A
// body that begins as JSON does is no event stream: its content type need not be
// read, which would be two calls across the border of the VM.
func (a *attempt) begin(size int, end bool) types.Action {
	if size == 0 {
		return types.ActionContinue
	}
	p := a.plugin.responseBytes(0, size)
	if p[0] == '{' {
		a.form = jsonBody
	} else {
		a.form = responseForm()
	}
	switch a.form {
	case jsonBody:
		a.json = newJSONMeter()
		return a.writeJSON(p, end)
	case eventStream:
		a.stream = &stream{} // its headers have gone, with the length that it shall have
		return a.passOn(size, end)
	}
	return types.ActionContinue
}

// newJSONMeter is a meter of one value: an empty first piece keeps it from
// remembering what the next value may repeat.
func newJSONMeter() *openai.Meter {
	m := &openai.Meter{}
	m.Write(nil)
	return m
}

func (a *attempt) meterJSON(size int, end bool) types.Action {
	var p []byte
	if size > 0 {
		p = a.plugin.responseBytes(0, size)
	}
	return a.writeJSON(p, end)
}

func (a *attempt) writeJSON(p []byte, end bool) types.Action {
	if len(p) > 0 {
		a.json.Write(p)
		if a.usage.FirstToken == 0 {
			a.usage.FirstToken = a.plugin.now().UnixMicro()
		}
	}
	if end {
		return a.endJSON()
	}
	return types.ActionContinue
}

// endJSON cuts an answer that ended in the middle: one that the end of its connection
// ends looks whole to Envoy.
func (a *attempt) endJSON() types.Action {
	a.noteUsage()
	if a.json.Partial() {
		return a.cut()
	}
	return types.ActionContinue
}

// cut ends a response whose end would make it look whole.
func (a *attempt) cut() types.Action {
	return a.refuse(errInterrupted)
}

// hold reads on in a response that waits in the host for its first content.
func (a *attempt) hold(size int, end bool) types.Action {
	var p []byte
	if size > a.seen {
		p = a.plugin.responseBytes(a.seen, size-a.seen)
		a.seen = size
	}
	out, differs := a.stream.feed(p, end)
	if end && !a.stream.started {
		// Nothing has reached the client: the next target may do better.
		a.held = false
		setState(stateAttempts, a.noteEnd(strconv.Itoa(ai.ReasonStreamInterrupted.Answer().Status)))
		action := a.replaceAnswer(ai.ReasonStreamInterrupted, emptyStream, false)
		if !a.refused {
			replaceBody(a.heldOut)
		}
		return action
	}
	if a.stream.strip {
		a.heldOut = append(a.heldOut, out...)
		a.heldDiffers = a.heldDiffers || differs
	}
	if !a.stream.started && !end && size <= maxHeld {
		return types.ActionPause
	}
	if a.heldDiffers {
		replaceBody(a.heldOut)
	}
	if end {
		a.endStream()
	}
	a.held, a.heldOut = false, nil
	a.noteUsage()
	if a.target.StreamIdleMillis > 0 && !end {
		a.plugin.watch.follow(a, a.plugin.now())
	}
	return types.ActionContinue
}

// passOn meters a piece of a stream that passes.
func (a *attempt) passOn(size int, end bool) types.Action {
	a.heard, a.ended = true, end
	var p []byte
	if size > 0 {
		p = a.plugin.responseBytes(0, size)
	}
	if out, differs := a.stream.feed(p, end); differs {
		replaceBody(out)
	}
	if end {
		a.endStream()
	}
	a.noteUsage()
	return types.ActionContinue
}

// endStream tells the client of a stream that broke off, where the backend's connection
// ended as if it were whole.
func (a *attempt) endStream() {
	if !a.Stream || a.stream.whole() {
		return // who asked for no stream reads no events
	}
	if err := proxywasm.AppendHttpResponseBody(interruption); err != nil {
		panic(fmt.Sprintf("append to the response body: %v", err))
	}
}

// noteUsage sets the filter state if it changed, so that the access log has
// what was used whenever the client goes.
func (a *attempt) noteUsage() {
	u := &a.usage
	if a.form == jsonBody {
		u.Usage, u.Reported = a.json.Usage()
		ev := a.json.Event()
		u.TextBytes, u.Finish, u.Done = ev.TextBytes, a.json.Finish(), ev.Complete
	} else {
		a.stream.usage(u)
		if a.stream.content && u.FirstToken == 0 {
			u.FirstToken = a.plugin.now().UnixMicro()
		}
	}
	next := u.AppendTo(a.spare[:0])
	if string(next) == string(a.state) {
		return
	}
	a.spare, a.state = a.state, next
	setState(stateUsage, next)
}

// responseBytes reads a part of the body that the host said is there. The bytes
// are valid until the next call, of whichever attempt.
func (p *plugin) responseBytes(start, size int) []byte {
	var err error
	p.buf, err = bridge.ReadResponse(p.buf, start, size)
	if err != nil || len(p.buf) != size {
		panic(fmt.Sprintf("the host has not the %d bytes that it announced: %v", size, err))
	}
	return p.buf
}

func replaceBody(p []byte) {
	if err := proxywasm.ReplaceHttpResponseBody(p); err != nil {
		panic(fmt.Sprintf("replace the response body: %v", err))
	}
}
