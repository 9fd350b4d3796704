package usagev1

import (
	"reflect"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/weirproxy/weir/internal/ai"
)

// numbered fills every field of a struct of integers with another number, so that
// fields that are mixed up or forgotten show.
func numbered[T any](first int64) T {
	var v T
	fields := reflect.ValueOf(&v).Elem()
	for i := range fields.NumField() {
		fields.Field(i).SetInt(first + int64(i))
	}
	return v
}

func through[M proto.Message](t *testing.T, m, empty M) M {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	if err := proto.Unmarshal(b, empty); err != nil {
		t.Fatal(err)
	}
	return empty
}

func TestNounsComeBack(t *testing.T) {
	for _, first := range []int64{0, 7} {
		u := numbered[ai.Usage](first)
		if got := through(t, TokensOf(u), &Tokens{}).Usage(); got != u {
			t.Errorf("%+v became %+v", u, got)
		}
		c := numbered[ai.Costs](first)
		if got := through(t, CostsOf(c), &Costs{}).Nouns(); got != c {
			t.Errorf("%+v became %+v", c, got)
		}
		for _, p := range []ai.Price{numbered[ai.Price](first), {Input: 5, Output: 7}, {Input: 5, CacheWrite: 5, Output: 7, Reasoning: 7}, {CacheWrite: 1}} {
			var x TargetPrice
			x.SetPrice(p)
			if got := through(t, &x, &TargetPrice{}).Price(); got != p {
				t.Errorf("%+v became %+v", p, got)
			}
		}
	}
}

// A decision that was journalled when a price had three classes.
func TestPriceOfThreeClasses(t *testing.T) {
	x := &TargetPrice{Input: 5, CachedInput: 1, Output: 9}
	want := ai.Price{Input: 5, CachedInput: 1, CacheWrite: 5, AudioInput: 5, ImageInput: 5, Output: 9, Reasoning: 9, AudioOutput: 9, ImageOutput: 9}
	if got := x.Price(); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if (*TargetPrice)(nil).Price() != (ai.Price{}) || (*Tokens)(nil).Usage() != (ai.Usage{}) {
		t.Error("of nothing, something")
	}
}
