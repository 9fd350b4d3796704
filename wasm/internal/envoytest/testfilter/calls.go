package main

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/tetratelabs/proxy-wasm-go-sdk/proxywasm"
	"github.com/tetratelabs/proxy-wasm-go-sdk/proxywasm/types"

	"github.com/weirproxy/weir/wasm/bridge"
)

// calls makes host calls and answers with what went wrong, one line each.
type calls struct {
	types.DefaultHttpContext
	faults []string
}

func (c *calls) OnHttpRequestHeaders(int, bool) types.Action {
	c.properties()
	c.headers()
	c.shared()
	proxywasm.LogWarn("a log line of the test filter")
	proxywasm.LogError("") // a message of no bytes
	err := proxywasm.SendHttpResponse(418, [][2]string{{"x-answer", "yes"}, {"x-empty", ""}},
		[]byte(strings.Join(c.faults, "\n")), -1)
	if err != nil {
		proxywasm.LogCriticalf("no answer: %v", err)
	}
	return types.ActionPause
}

func (c *calls) check(what string, ok bool, got ...any) {
	if !ok {
		c.faults = append(c.faults, what+": "+fmt.Sprint(got...))
	}
}

func (c *calls) properties() {
	_, err := proxywasm.GetProperty([]string{"no", "such", "thing"})
	c.check("missing property", errors.Is(err, types.ErrorStatusNotFound), err)
	got, err := proxywasm.GetProperty([]string{"metadata", "filter_metadata", "dotted.name", "key"})
	c.check("metadata", string(got) == "value", string(got), err)
	got, err = proxywasm.GetProperty([]string{"xds", "cluster_metadata", "filter_metadata", "weir.target", "params"})
	c.check("no cluster before the router", err != nil, string(got))
	for _, size := range []int{1, 0, 100, 64 << 10, 20 << 20} {
		want := bytes.Repeat([]byte{'x'}, size)
		for name, set := range map[string]func() error{
			"sdk":    func() error { return proxywasm.SetProperty([]string{"state"}, want) },
			"bridge": func() error { return bridge.State("state").Set(want) },
		} {
			if size == 0 && name == "sdk" {
				continue // the SDK itself refuses that
			}
			err := set()
			got, err2 := proxywasm.GetProperty([]string{"state"})
			c.check(fmt.Sprintf("state of %d bytes by %s", size, name), bytes.Equal(got, want), len(got), err, err2)
		}
	}
}

func (c *calls) headers() {
	_, err := proxywasm.GetHttpRequestHeader("x-none")
	c.check("missing header", errors.Is(err, types.ErrorStatusNotFound), err)
	got, err := proxywasm.GetHttpRequestHeader("x-sent-empty")
	c.check("empty header", got == "", got, err)
	for _, value := range []string{"a", "", strings.Repeat("b", 40<<10)} {
		err := proxywasm.ReplaceHttpRequestHeader("x-new", value)
		got, err2 := proxywasm.GetHttpRequestHeader("x-new")
		c.check(fmt.Sprintf("header of %d bytes", len(value)), got == value, len(got), err, err2)
	}
	err = proxywasm.RemoveHttpRequestHeader("x-new")
	_, err2 := proxywasm.GetHttpRequestHeader("x-new")
	c.check("removed header", errors.Is(err2, types.ErrorStatusNotFound), err, err2)
	all, err := proxywasm.GetHttpRequestHeaders()
	found := false
	for _, h := range all {
		found = found || h == [2]string{"x-sent", "one"}
	}
	c.check("all headers", found, all, err)
}

// shared makes the calls whose results are numbers: weir's filters do not need
// them yet, but the generated code for them is another.
func (c *calls) shared() {
	_, _, err := proxywasm.GetSharedData("none")
	c.check("missing shared data", errors.Is(err, types.ErrorStatusNotFound), err)
	err = proxywasm.SetSharedData("key", []byte("value"), 0)
	got, cas, err2 := proxywasm.GetSharedData("key")
	c.check("shared data", string(got) == "value" && cas != 0, string(got), cas, err, err2)
	err = proxywasm.SetSharedData("key", []byte("late"), cas+1)
	c.check("shared data of another version", errors.Is(err, types.ErrorStatusCasMismatch), err)
	counter := proxywasm.DefineCounterMetric("weir_test_counter")
	before := counter.Value()
	counter.Increment(1 << 40)
	c.check("counter", counter.Value() == before+1<<40, before, counter.Value())
	_, err = proxywasm.CallForeignFunction("none", []byte("x"))
	c.check("missing function", err != nil, err)
}
