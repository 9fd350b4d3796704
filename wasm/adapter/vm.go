// Package adapter is the Wasm filter that weir runs in each pool's own upstream
// filter chain, once an attempt: it gives the request the target's model name,
// path and host, holds a stream's response headers until the first content (so
// that a target that stalls can still be replaced), meters what is used while
// the response passes, and notes attempts and usage in the filter state for the
// access log.
//
// It never sees a credential, never reads more of a body than it must, never
// buffers a response, and never lets a request through that it could not adapt.
package adapter

import (
	"errors"
	"fmt"
	"time"

	"github.com/tetratelabs/proxy-wasm-go-sdk/proxywasm"
	"github.com/tetratelabs/proxy-wasm-go-sdk/proxywasm/types"

	"github.com/weirproxy/weir/dialect/openai"
	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/wasm/bridge"
)

// VM is the filter, to be given to proxywasm.SetVMContext.
func VM() types.VMContext { return &vm{now: time.Now} }

type vm struct {
	types.DefaultVMContext
	now func() time.Time
}

func (v *vm) NewPluginContext(id uint32) types.PluginContext {
	return &plugin{id: id, now: v.now, targets: targets{}}
}

// plugin is what the attempts of one worker share.
type plugin struct {
	types.DefaultPluginContext
	id      uint32
	now     func() time.Time
	targets targets
	buf     []byte // what was read last of a response
	watch   watch
}

func (p *plugin) NewHttpContext(id uint32) types.HttpContext { return &attempt{plugin: p, id: id} }

// attempt is one try at one target.
type attempt struct {
	types.DefaultHttpContext
	plugin *plugin
	id     uint32
	request
	response
	refused bool // a local reply was sent: nothing may pass any more
}

// What a refusal tells the client.
const (
	refusal       = "the gateway could not adapt this request to its target"
	bypassRefusal = "the gateway has not decided about this request"
)

// errBypass says that the request came here past weir: a route of somebody else's
// leads to a pool, or ext_proc was taken off one of weir's.
var errBypass = errors.New("bypass: no decision of weir's came with the request")

// errInterrupted says that the backend's answer ended before it was whole.
var errInterrupted = errors.New("interrupted: the backend's answer ended in its middle")

// refuse answers the client in the place of the target, and tells the log why.
// Nothing secret may be in why.
func (a *attempt) refuse(why error) types.Action {
	a.refused = true
	proxywasm.LogErrorf("attempt refused: %v", why)
	reason, text, details := ai.ReasonInternal, refusal, ai.DetailsAdapter
	switch {
	case errors.Is(why, errBypass):
		reason, text, details = ai.ReasonBypass, bypassRefusal, ai.DetailsBypass
	case errors.Is(why, errInterrupted):
		reason, text, details = ai.ReasonStreamInterrupted, emptyStream, ai.DetailsInterrupted
	case errors.Is(why, errIdle):
		reason, text, details = ai.ReasonStreamInterrupted, silentStream, ai.DetailsIdle
	}
	header := [][2]string{{"content-type", "application/json"}}
	body := openai.ErrorBody(reason, text, "")
	if err := bridge.Answer(reason.Answer().Status, details, header, body); err != nil {
		proxywasm.LogCriticalf("attempt refused, but no answer could be sent: %v", err)
	}
	return types.ActionPause
}

// The callbacks. Each recovers: a panic costs its own stream, not the worker's
// others.

func (a *attempt) OnHttpRequestHeaders(_ int, end bool) (action types.Action) {
	defer a.recoverRequest(&action)
	return a.requestHeaders(end)
}

func (a *attempt) OnHttpRequestBody(size int, end bool) (action types.Action) {
	defer a.recoverRequest(&action)
	return a.requestBody(size, end)
}

func (a *attempt) OnHttpRequestTrailers(int) (action types.Action) {
	defer a.recoverRequest(&action)
	return a.requestTrailers()
}

func (a *attempt) OnHttpResponseHeaders(_ int, end bool) (action types.Action) {
	defer a.recoverResponse(&action)
	return a.responseHeaders(end)
}

func (a *attempt) OnHttpResponseBody(size int, end bool) (action types.Action) {
	defer a.recoverResponse(&action)
	return a.responseBody(size, end)
}

func (a *attempt) OnHttpResponseTrailers(int) (action types.Action) {
	defer a.recoverResponse(&action)
	return a.responseTrailers()
}

// recoverRequest refuses the request whose callback panicked.
func (a *attempt) recoverRequest(action *types.Action) {
	if r := recover(); r != nil {
		*action = a.refuse(fmt.Errorf("panic on the request: %v", r))
	}
}

// recoverResponse gives up on a response whose callback panicked. The client
// gets an error if it has no headers yet. Otherwise the rest passes as it comes,
// unmetered, unless bytes may be missing: then the response is cut, as an answer
// after the headers makes the host do.
func (a *attempt) recoverResponse(action *types.Action) {
	r := recover()
	if r == nil {
		return
	}
	err := fmt.Errorf("panic on the response: %v", r)
	if a.held || a.stream != nil && a.stream.strip {
		*action = a.refuse(err)
		return
	}
	proxywasm.LogErrorf("metering given up: %v", err)
	a.form = unmetered
	*action = types.ActionContinue
}
