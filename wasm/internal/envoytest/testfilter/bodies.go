package main

import (
	"bytes"
	"math"
	"strconv"

	"github.com/tetratelabs/proxy-wasm-go-sdk/proxywasm"
	"github.com/tetratelabs/proxy-wasm-go-sdk/proxywasm/types"

	"github.com/weirproxy/weir/wasm/bridge"
)

// bodies reads whole bodies and puts others in their place, as the request's
// header x-body says.
type bodies struct {
	types.DefaultHttpContext
	do   string
	read []byte
}

func (b *bodies) OnHttpRequestHeaders(int, bool) types.Action {
	b.do, _ = proxywasm.GetHttpRequestHeader("x-body")
	_ = proxywasm.RemoveHttpRequestHeader("content-length")
	return types.ActionContinue
}

func (b *bodies) OnHttpRequestBody(size int, end bool) types.Action {
	if b.do != "upper" && b.do != "head" {
		return types.ActionContinue
	}
	if !end {
		return types.ActionPause
	}
	switch b.do {
	case "upper":
		body, err := proxywasm.GetHttpRequestBody(0, math.MaxInt32)
		must("read the request", err)
		if len(body) != size {
			proxywasm.LogCriticalf("%d bytes of %d", len(body), size)
		}
		must("replace the request", proxywasm.ReplaceHttpRequestBody(bytes.ToUpper(body)))
	case "head":
		must("replace the head", bridge.ReplaceRequestHead(5, []byte("<new head>")))
	}
	return types.ActionContinue
}

func (b *bodies) OnHttpResponseHeaders(int, bool) types.Action {
	_ = proxywasm.RemoveHttpResponseHeader("content-length")
	_ = proxywasm.ReplaceHttpResponseHeader("x-filter", "seen")
	return types.ActionContinue
}

func (b *bodies) OnHttpResponseBody(size int, end bool) types.Action {
	switch b.do {
	case "empty": // each piece, as it comes
		must("empty the response", proxywasm.ReplaceHttpResponseBody(nil))
	case "whole":
		if !end {
			return types.ActionPause
		}
		body, err := bridge.ReadResponse(nil, 0, size)
		must("read the response", err)
		more, err := bridge.ReadResponse(nil, 1, size+100)
		must("read on", err)
		out := append([]byte(strconv.Itoa(len(body))+" "+strconv.Itoa(len(more))+" "), body...)
		must("replace the response", proxywasm.ReplaceHttpResponseBody(out))
	case "pieces":
		if size > 0 {
			var err error
			b.read, err = bridge.ReadResponse(b.read, 0, size)
			must("read a piece", err)
			must("replace a piece", proxywasm.ReplaceHttpResponseBody(bytes.ToUpper(b.read)))
		}
	}
	return types.ActionContinue
}

func must(what string, err error) {
	if err != nil {
		proxywasm.LogCriticalf("%s: %v", what, err)
	}
}
