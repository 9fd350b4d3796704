package limit

import (
	"math/rand/v2"
	"slices"
	"testing"
)

func TestBuckets(t *testing.T) {
	last := -1
	for n := int64(1); n < 9_000_000; n += 1 + n/500 {
		i := bucket(n)
		if i < last || top(i) < n && i != len(lengths{}.n)-1 || i > 0 && top(i-1) >= n {
			t.Fatalf("%d is in bucket %d, which goes to %d", n, i, top(i))
		}
		if over := float64(top(i)) / float64(n); over > 1.0626 && i != len(lengths{}.n)-1 {
			t.Fatalf("%d is taken for %d", n, top(i))
		}
		last = i
	}
}

// Most is the 99th percentile, within a bucket's width, of what came lately.
func TestMost(t *testing.T) {
	o, rng := NewOutputs(), rand.New(rand.NewPCG(1, 2))
	var all []int64
	for i := range 3000 {
		n := 1 + int64(rng.ExpFloat64()*400)
		all = append(all, n)
		o.Observe("m", n, false)
		if i < enough-2 && o.Most("m") != 0 {
			t.Fatalf("a bound after %d answers", i+1)
		}
	}
	slices.Sort(all)
	want := all[len(all)*99/100]
	if got := o.Most("m"); got < want || float64(got) > 1.1*float64(want) {
		t.Errorf("%d, want %d", got, want)
	}
	for range 4 * memory {
		o.Observe("m", 10, false)
	}
	if got := o.Most("m"); got != 10 {
		t.Errorf("%d, though answers have had 10 tokens for long", got)
	}
	for range 4 * memory {
		o.Observe("m", 10, true)
	}
	if got := o.Most("m"); got < 20 {
		t.Errorf("%d: answers that are cut lower their own ceiling", got)
	}
}

func TestOverrun(t *testing.T) {
	o := NewOutputs()
	o.Ended("p", 100, 100)
	o.Ended("p", 100, 0)
	if o.Overrun("p") != 0 {
		t.Error("a pool that keeps to its ceilings is not trusted")
	}
	o.Ended("p", 150, 100)
	o.Ended("p", 120, 100)
	if got := o.Overrun("p"); got != 51 {
		t.Errorf("%d per cent, want 51", got)
	}
	for range 999 {
		o.Ended("p", 1, 100)
	}
	if got := o.Overrun("p"); got != 51 {
		t.Errorf("%d per cent, want 51 still", got)
	}
	for range 6000 {
		o.Ended("p", 1, 100)
	}
	if got := o.Overrun("p"); got != 0 {
		t.Errorf("%d per cent after 7000 that obeyed", got)
	}
}
