package spool

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func frame(t testing.TB, kind byte, payload string) []byte {
	t.Helper()
	b, err := End(append(Begin(nil, kind), payload...), 0)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func open(t testing.TB, dir string, opt Options) *Log {
	t.Helper()
	l, err := Open(dir, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func add(t testing.TB, l *Log, payloads ...string) {
	t.Helper()
	for _, p := range payloads {
		if _, err := l.Append(frame(t, 'a', p), 0); err != nil {
			t.Fatal(err)
		}
	}
}

func read(t testing.TB, r *Reader) []string {
	t.Helper()
	var got []string
	for {
		kind, payload, err := r.Next()
		if errors.Is(err, io.EOF) {
			return got
		}
		if err != nil || kind != 'a' {
			t.Fatalf("kind %c, %v", kind, err)
		}
		got = append(got, string(payload))
	}
}

func TestReadsWhatWasAppendedWhileAppending(t *testing.T) {
	l := open(t, t.TempDir(), Options{SegmentBytes: 100})
	r := l.NewReader(Position{})
	var want, got []string
	for i := range 50 {
		p := fmt.Sprintf("record %d", i)
		want = append(want, p)
		add(t, l, p)
		if i%7 == 0 {
			got = append(got, read(t, r)...)
		}
	}
	got = append(got, read(t, r)...)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if n := len(l.Segments()); n < 5 {
		t.Errorf("%d segments: it never rotated", n)
	}
	if got := read(t, l.NewReader(r.Position())); got != nil {
		t.Errorf("from the last position: %q", got)
	}
}

func TestConcurrentAppendsAllArrive(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, Options{SegmentBytes: 4096})
	var mu sync.Mutex
	where := map[Position]string{}
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 200 {
				text := fmt.Sprintf("%d/%d", g, i)
				at, err := l.Append(frame(t, 'a', text), 0)
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				where[at] = text
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	r := l.NewReader(Position{})
	for {
		_, payload, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil || where[r.Last()] != string(payload) {
			t.Fatalf("%v: %q is there, Append said that of %q; %v", r.Last(), payload, where[r.Last()], err)
		}
	}
	l.Close()
	l = open(t, dir, Options{})
	got := read(t, l.NewReader(Position{}))
	next := map[string]int{}
	for _, s := range got {
		var g, i int
		fmt.Sscanf(s, "%d/%d", &g, &i)
		if key := fmt.Sprint(g); next[key] != i {
			t.Fatalf("writer %d: record %d, want %d", g, i, next[key])
		} else {
			next[key]++
		}
	}
	if len(got) != 8*200 {
		t.Errorf("%d records, want %d", len(got), 8*200)
	}
}

// A crash may cut the last segment at any byte: what was whole stays, what was
// cut goes, and the spool goes on.
func TestTornAtEveryByte(t *testing.T) {
	src := t.TempDir()
	l := open(t, src, Options{})
	add(t, l, "one", "two", "three")
	l.Close()
	name := segmentName(l.Segments()[0])
	whole, err := os.ReadFile(filepath.Join(src, name))
	if err != nil {
		t.Fatal(err)
	}
	ends := []int{len(magic)}
	for _, p := range []string{"one", "two", "three"} {
		ends = append(ends, ends[len(ends)-1]+frameHead+1+len(p))
	}
	for cut := range len(whole) + 1 {
		for _, filler := range []int{0, 64} {
			dir := t.TempDir()
			b := append(slices.Clone(whole[:cut]), make([]byte, filler)...)
			if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
				t.Fatal(err)
			}
			l, err := Open(dir, Options{})
			if err != nil {
				t.Fatalf("cut at %d: %v", cut, err)
			}
			add(t, l, "after")
			want := []string{"one", "two", "three"}[:max(0, countWhole(ends, cut))]
			if got := read(t, l.NewReader(Position{})); !slices.Equal(got, append(slices.Clone(want), "after")) {
				t.Errorf("cut at %d, %d zeros after: %q", cut, filler, got)
			}
			if l.Close(); filler == 0 && l.Damage().Corrupt != 0 {
				t.Errorf("cut at %d: a torn tail is called corrupt", cut)
			}
		}
	}
}

func countWhole(ends []int, cut int) int {
	n := -1
	for _, e := range ends {
		if e <= cut {
			n++
		}
	}
	return n
}

// A flipped bit anywhere loses the records from there to the segment's end and
// none of another segment, and it is counted.
func TestCorruptAtEveryByte(t *testing.T) {
	src := t.TempDir()
	l := open(t, src, Options{SegmentBytes: 36})
	add(t, l, "one", "two", "three", "four", "five", "six")
	l.Close()
	segs := l.Segments()
	if len(segs) < 3 {
		t.Fatal("want three segments")
	}
	middle, err := os.ReadFile(filepath.Join(src, segmentName(segs[1])))
	if err != nil {
		t.Fatal(err)
	}
	all := read(t, open(t, src, Options{}).NewReader(Position{}))
	for at := range middle {
		dir := t.TempDir()
		if err := os.CopyFS(dir, os.DirFS(src)); err != nil {
			t.Fatal(err)
		}
		b := bytes.Clone(middle)
		b[at] ^= 0x10
		if err := os.WriteFile(filepath.Join(dir, segmentName(segs[1])), b, 0o600); err != nil {
			t.Fatal(err)
		}
		l, err := Open(dir, Options{})
		if err != nil {
			t.Fatal(err)
		}
		got := read(t, l.NewReader(Position{}))
		if len(got) >= len(all) || got[0] != "one" || got[len(got)-1] != "six" || !subset(got, all) {
			t.Errorf("bit flipped at %d: %q", at, got)
		}
		if l.Damage().Corrupt == 0 {
			t.Errorf("bit flipped at %d: not counted", at)
		}
		l.Close()
	}
}

func subset(got, all []string) bool {
	for _, s := range got {
		if !slices.Contains(all, s) {
			return false
		}
	}
	return true
}

// Rot in a segment that was good when it was opened is passed over too, in the
// one that is being written as well.
func TestCorruptUnderTheReader(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, Options{})
	add(t, l, "one", "two")
	path := filepath.Join(dir, segmentName(l.Segments()[0]))
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)-1] ^= 1
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	r := l.NewReader(Position{})
	if got := read(t, r); !slices.Equal(got, []string{"one"}) {
		t.Errorf("%q", got)
	}
	add(t, l, "three")
	if got := read(t, r); !slices.Equal(got, []string{"three"}) {
		t.Errorf("%q", got)
	}
	if l.Damage().Corrupt == 0 {
		t.Error("not counted")
	}
}

func TestHoldsKeepSegments(t *testing.T) {
	l := open(t, t.TempDir(), Options{SegmentBytes: 40, Head: func() []byte { return frame(t, 'a', "head") }})
	at, err := l.Append(frame(t, 'a', "0123456789"), 2)
	seq := at.Segment
	if err != nil {
		t.Fatal(err)
	}
	add(t, l, "0123456789", "0123456789")
	first := l.Segments()[0]
	if first != seq && l.Segments()[1] != seq {
		t.Fatalf("segment %d is not there", seq)
	}
	for _, s := range l.Segments() {
		if s == seq {
			break
		}
		if err := l.Remove(s); err != nil {
			t.Fatal(err)
		}
	}
	l.Release(seq)
	if err := l.Remove(seq); err == nil {
		t.Error("a segment that is held was removed")
	}
	l.Release(seq)
	if err := l.Remove(seq); err != nil {
		t.Error(err)
	}
	segs := l.Segments()
	if err := l.Remove(segs[len(segs)-1]); err == nil {
		t.Error("the segment that is being written was removed")
	}
	if got := read(t, l.NewReader(Position{Segment: seq, Offset: 9})); got[0] != "head" {
		t.Errorf("from a position that is gone: %q", got)
	}
}

func TestOneProcessOnly(t *testing.T) {
	dir := t.TempDir()
	open(t, dir, Options{})
	if _, err := Open(dir, Options{}); err == nil {
		t.Error("opened twice")
	}
}

func TestTooLarge(t *testing.T) {
	b := append(Begin(nil, 1), make([]byte, MaxRecord)...)
	if _, err := End(b, 0); !errors.Is(err, ErrTooLarge) {
		t.Error(err)
	}
	if _, err := End(b[:len(b)-1], 0); err != nil {
		t.Error(err)
	}
}

// A write that fails leaves nothing behind and does not stop later ones.
func TestFailedWriteIsTakenBack(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, Options{})
	add(t, l, "one")
	good := l.file
	bad, err := os.Open(filepath.Join(dir, segmentName(l.Segments()[0]))) // not for writing
	if err != nil {
		t.Fatal(err)
	}
	l.file = bad
	if _, err := l.Append(frame(t, 'a', "lost"), 1); err == nil {
		t.Fatal("no error")
	}
	l.file = good
	bad.Close()
	if n := l.Holds(l.Segments()[0]); n != 0 {
		t.Errorf("a failed append holds the segment %d times", n)
	}
	add(t, l, "two")
	l.Close()
	if got := read(t, open(t, dir, Options{}).NewReader(Position{})); !slices.Equal(got, []string{"one", "two"}) {
		t.Errorf("%q", got)
	}
}

// FuzzSegment opens any bytes as a segment: no panic, what is readable is
// read, and the spool can be written.
func FuzzSegment(f *testing.F) {
	f.Add([]byte(magic))
	f.Add(append([]byte(magic), frame(f, 'a', "one")...))
	f.Add(append([]byte(magic), 255, 255, 255, 255, 0, 0, 0, 0, 1))
	f.Fuzz(func(t *testing.T, b []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, segmentName(7)), b, 0o600); err != nil {
			t.Fatal(err)
		}
		l, err := Open(dir, Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		if _, err := l.Append(frame(t, 'z', "end"), 0); err != nil {
			t.Fatal(err)
		}
		r := l.NewReader(Position{})
		last := byte(0)
		for {
			kind, _, err := r.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			last = kind
		}
		if last != 'z' {
			t.Error("the record after the damage was not read")
		}
	})
}

func BenchmarkAppend(b *testing.B) {
	for _, size := range []int{300, 600} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			l := open(b, b.TempDir(), Options{})
			rec := frame(b, 1, string(make([]byte, size)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := l.Append(rec, 0); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("parallel", func(b *testing.B) {
		l := open(b, b.TempDir(), Options{})
		rec := frame(b, 1, string(make([]byte, 600)))
		b.ReportAllocs()
		b.SetParallelism(16)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if _, err := l.Append(rec, 0); err != nil {
					b.Fatal(err)
				}
			}
		})
	})
}
