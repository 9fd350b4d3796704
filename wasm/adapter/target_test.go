package adapter

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/weirproxy/weir/internal/ai"
)

// Parameters come back as they are written by encoding/json, every field of them.
func TestParseTarget(t *testing.T) {
	var want ai.AdapterTarget
	fields := reflect.ValueOf(&want).Elem()
	for i := range fields.NumField() {
		switch f := fields.Field(i); f.Kind() {
		case reflect.String:
			f.SetString("<a \"quoted\" \\ text>, ü, \u2028, \x01: " + fields.Type().Field(i).Name)
		case reflect.Bool:
			f.SetBool(true)
		case reflect.Int64:
			f.SetInt(86_400_000)
		default:
			t.Fatalf("a field of kind %s: teach parseTarget to read it", f.Kind())
		}
	}
	b, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	later := strings.Replace(string(b), "{", `{"later":{"of":["a","weir"]},`, 1)
	got, err := parseTarget(later)
	if err != nil {
		t.Fatal(err)
	}
	var model string
	if got.AdapterTarget != want || json.Unmarshal(got.model, &model) != nil || model != want.Model {
		t.Errorf("%+v, model %s, want %+v", got.AdapterTarget, got.model, want)
	}
	for name, params := range map[string]string{
		"nothing": "", "no object": `["pool"]`, "cut": string(b[:len(b)-1]), "more": string(b) + "x",
		"no pool": `{"model":"m"}`, "no model": `{"pool":"p"}`, "a number": `{"pool":"p","model":1}`, "no bool": `{"pool":"p","model":"m","tells_limits":"true"}`,
		"no number": `{"pool":"p","model":"m","stream_idle_ms":"1"}`, "no whole number": `{"pool":"p","model":"m","stream_idle_ms":1.5}`,
		"twice": `{"pool":"p","model":"m","pool":"q"}`, "too deep": `{"pool":"p","model":"m","x":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `}`,
	} {
		if got, err := parseTarget(params); err == nil {
			t.Errorf("%s: %+v", name, got)
		}
	}
}
