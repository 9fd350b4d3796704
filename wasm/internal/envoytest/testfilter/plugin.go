package main

import "github.com/tetratelabs/proxy-wasm-go-sdk/proxywasm/types"

func (p *plugin) NewHttpContext(uint32) types.HttpContext { return &types.DefaultHttpContext{} }
