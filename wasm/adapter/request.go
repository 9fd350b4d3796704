package adapter

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/tetratelabs/proxy-wasm-go-sdk/proxywasm"
	"github.com/tetratelabs/proxy-wasm-go-sdk/proxywasm/types"

	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/wasm/bridge"
)

// The filter states that the adapter sets. statePath has the client's path:
// what an attempt changes in the headers, the next attempt finds changed.
const (
	stateAttempts = bridge.State(ai.StateAttempts)
	stateUsage    = bridge.State(ai.StateUsage)
	statePath     = bridge.State("weir_path")
)

// absent is how Envoy writes a value that is not there.
const absent = "-"

// clientBase is what the target's base path stands for.
const clientBase = "/v1"

// request is the attempt's request.
type request struct {
	ai.AdapterRequest
	target   *target
	attempts string // the attempts up to this one, without its status
	size     int    // of the body, in bytes, as far as it is here
	sent     bool   // the body was adapted
}

func (a *attempt) requestHeaders(end bool) types.Action {
	if err := a.prepare(); err != nil {
		return a.refuse(err)
	}
	if end {
		return a.refuse(errors.New("the request has no body"))
	}
	return types.ActionPause // until the length of the body is known
}

// prepare reads what the attempt needs and rewrites the headers.
func (a *attempt) prepare() error {
	header, err := proxywasm.GetHttpRequestHeader(ai.AttemptHeader)
	if err != nil {
		return fmt.Errorf("read %s: %w", ai.AttemptHeader, err)
	}
	fields := strings.SplitN(header, "\t", ai.AttemptFields)
	if len(fields) != ai.AttemptFields {
		return fmt.Errorf("%s has %d fields, want %d", ai.AttemptHeader, len(fields), ai.AttemptFields)
	}
	if a.target, err = a.plugin.targets.read(fields[0]); err != nil {
		return err
	}
	if fields[1] == "" || fields[1] == absent {
		return errBypass
	}
	if a.AdapterRequest, err = ai.ParseAdapterRequest(fields[1]); err != nil {
		return err
	}
	retry := a.noteBegin(fields[2])
	if err := a.rewritePath(fields[3], retry); err != nil {
		return err
	}
	if a.target.Host == "" {
		return nil
	}
	if err := proxywasm.ReplaceHttpRequestHeader(":authority", a.target.Host); err != nil {
		return fmt.Errorf("set :authority: %w", err)
	}
	return nil
}

// noteBegin notes the attempt while it has no status, which a refused
// connection never gets. It tells whether there were attempts before.
func (a *attempt) noteBegin(before string) (retry bool) {
	retry = before != "" && before != absent
	if retry {
		a.attempts = before + ";"
	}
	a.attempts += a.target.Pool + ":"
	setState(stateAttempts, []byte(a.attempts+"0"))
	return retry
}

// rewritePath puts the target's base path in the place of the client's. An
// attempt before may have put its own there.
func (a *attempt) rewritePath(current string, retry bool) error {
	path, kept := current, false
	if retry {
		if client, err := proxywasm.GetProperty([]string{string(statePath)}); err == nil && len(client) > 0 {
			path, kept = string(client), true
		}
	}
	rest, ok := strings.CutPrefix(path, clientBase)
	if !ok || !strings.HasPrefix(rest, "/") {
		return errors.New("the path does not begin with " + clientBase + "/")
	}
	to := a.target.BasePath + rest
	if to == current {
		return nil
	}
	if !kept {
		setState(statePath, []byte(path))
	}
	if err := proxywasm.ReplaceHttpRequestHeader(":path", to); err != nil {
		return fmt.Errorf("set :path: %w", err)
	}
	return nil
}

func (a *attempt) requestBody(size int, end bool) types.Action {
	if a.refused {
		return types.ActionPause
	}
	a.size = size // the host counts what it has buffered
	if !end {
		return types.ActionPause
	}
	return a.send()
}

func (a *attempt) requestTrailers() types.Action {
	if a.refused {
		return types.ActionPause
	}
	return a.send()
}

// send adapts the whole body and lets the request go.
func (a *attempt) send() types.Action {
	if a.sent {
		return types.ActionContinue
	}
	if err := a.spliceModel(); err != nil {
		return a.refuse(err)
	}
	a.sent = true
	return types.ActionContinue
}

// spliceModel puts the target's model name in the place of the client's, and
// says how long the body is then.
func (a *attempt) spliceModel() error {
	if a.ModelLength > a.size || a.ModelOffset > a.size-a.ModelLength {
		return fmt.Errorf("the model's name stands at byte %d, with %d bytes, in a body of %d",
			a.ModelOffset, a.ModelLength, a.size)
	}
	end := a.ModelOffset + a.ModelLength
	head, err := proxywasm.GetHttpRequestBody(0, end)
	if err != nil {
		return fmt.Errorf("read the body: %w", err)
	}
	if len(head) != end || head[a.ModelOffset] != '"' || head[end-1] != '"' {
		return fmt.Errorf("no JSON string stands at bytes %d to %d of the body", a.ModelOffset, end)
	}
	out := make([]byte, 0, a.ModelOffset+len(a.target.model))
	out = append(append(out, head[:a.ModelOffset]...), a.target.model...)
	if err := bridge.ReplaceRequestHead(end, out); err != nil {
		return err
	}
	length := strconv.Itoa(a.size - end + len(out))
	if err := proxywasm.ReplaceHttpRequestHeader("content-length", length); err != nil {
		return fmt.Errorf("set content-length: %w", err)
	}
	return nil
}

// setState sets a filter state, wasm.<name> in the access log. It fails only if
// the host is out of order: then the log lacks it, and weir settles by the
// reservation.
func setState(state bridge.State, value []byte) {
	if err := state.Set(value); err != nil {
		proxywasm.LogErrorf("%v", err)
	}
}
