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

// clientBase is what the target's base path stands for.
const clientBase = "/v1"

var (
	propertyTarget  = []string{"xds", "cluster_metadata", "filter_metadata", ai.TargetMetadata, ai.TargetKey}
	propertyRequest = []string{"metadata", "filter_metadata", ai.MetadataNamespace, ai.MetaRequest}
)

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
	params, err := proxywasm.GetProperty(propertyTarget)
	if err != nil {
		return fmt.Errorf("the cluster's metadata %s.%s: %w", ai.TargetMetadata, ai.TargetKey, err)
	}
	if a.target, err = a.plugin.targets.read(params); err != nil {
		return err
	}
	req, err := proxywasm.GetProperty(propertyRequest)
	if err != nil {
		return fmt.Errorf("dynamic metadata %s.%s: %w", ai.MetadataNamespace, ai.MetaRequest, err)
	}
	if a.AdapterRequest, err = ai.ParseAdapterRequest(string(req)); err != nil {
		return err
	}
	retry := a.noteBegin()
	if err := a.rewritePath(retry); err != nil {
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
func (a *attempt) noteBegin() (retry bool) {
	before, err := proxywasm.GetProperty([]string{ai.StateAttempts})
	retry = err == nil && len(before) > 0
	if retry {
		a.attempts = string(before) + ";"
	}
	a.attempts += a.target.Pool + ":"
	setState(stateAttempts, []byte(a.attempts+"0"))
	return retry
}

// rewritePath puts the target's base path in the place of the client's.
func (a *attempt) rewritePath(retry bool) error {
	path, err := clientPath(retry)
	if err != nil {
		return err
	}
	rest, ok := strings.CutPrefix(path, clientBase)
	if !ok || !strings.HasPrefix(rest, "/") {
		return errors.New("the path does not begin with " + clientBase + "/")
	}
	if a.target.BasePath != clientBase && !retry {
		setState(statePath, []byte(path))
	}
	if a.target.BasePath == clientBase && !retry {
		return nil
	}
	if err := proxywasm.ReplaceHttpRequestHeader(":path", a.target.BasePath+rest); err != nil {
		return fmt.Errorf("set :path: %w", err)
	}
	return nil
}

// clientPath is the path as the client sent it.
func clientPath(retry bool) (string, error) {
	if retry {
		if path, err := proxywasm.GetProperty([]string{string(statePath)}); err == nil && len(path) > 0 {
			return string(path), nil
		}
	}
	path, err := proxywasm.GetHttpRequestHeader(":path")
	if err != nil {
		return "", fmt.Errorf("read :path: %w", err)
	}
	return path, nil
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
