package main

import (
	"github.com/tetratelabs/proxy-wasm-go-sdk/proxywasm"
	"github.com/tetratelabs/proxy-wasm-go-sdk/proxywasm/types"
)

// trap is the adapter's attempt, which dies as the request's header x-trap says.
type trap struct{ types.HttpContext }

func (t *trap) OnHttpRequestHeaders(n int, end bool) types.Action {
	how, _ := proxywasm.GetHttpRequestHeader("x-trap")
	switch how {
	case "panic":
		panic("as told")
	case "deadlock":
		<-make(chan int)
	case "memory":
		hog = append(hog, make([]byte, 3<<30))
	}
	return t.HttpContext.OnHttpRequestHeaders(n, end)
}

var hog [][]byte
