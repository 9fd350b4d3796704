// Package reference asks the reference tokenizers: tiktoken, Hugging Face
// tokenizers and mistral-common, in a Python process beside the test. It is for
// tests, and is never part of weir.
package reference

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
)

// Vocabularies are the names that Start takes.
var Vocabularies = []string{"o200k_base", "cl100k_base", "qwen", "qwen3_6", "deepseek_v3", "llama3_1", "tekken"}

// Counter is a running reference tokenizer. Only one goroutine, the test's, may
// use it.
type Counter struct {
	tb      testing.TB
	vocab   string
	process *exec.Cmd
	texts   io.WriteCloser
	counts  *bufio.Reader
	stderr  bytes.Buffer
}

// Start runs scripts/reference.py for a vocabulary until the test ends. Loading
// takes up to five seconds, which the first Count waits for. Without the packages
// that `make setup` fetches the test fails.
func Start(tb testing.TB, vocab string) *Counter {
	tb.Helper()
	tools := filepath.Join(tree(), ".tools", "tokenizers")
	if _, err := os.Stat(filepath.Join(tools, ".done")); err != nil {
		tb.Fatalf("no reference tokenizers at %s: run make setup", tools)
	}
	script := filepath.Join(tree(), "scripts", "reference.py")
	c := &Counter{tb: tb, vocab: vocab}
	c.process = exec.CommandContext(tb.Context(), "python3", script, "--dir", tools, vocab)
	c.process.Stderr = &c.stderr
	texts, err := c.process.StdinPipe()
	if err != nil {
		tb.Fatal(err)
	}
	counts, err := c.process.StdoutPipe()
	if err != nil {
		tb.Fatal(err)
	}
	c.texts, c.counts = texts, bufio.NewReader(counts)
	if err := c.process.Start(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = c.process.Wait() }) // the context has killed it by then
	return c
}

// Count answers the number of tokens of each text, which must be UTF-8. Many texts
// in one call are faster than one text in each of many calls.
func (c *Counter) Count(texts ...[]byte) []int {
	written := make(chan error, 1)
	go func() { written <- send(c.texts, texts) }()
	counts := make([]int, 0, len(texts))
	for range texts {
		var count [4]byte
		if _, err := io.ReadFull(c.counts, count[:]); err != nil {
			c.fail(err)
		}
		counts = append(counts, int(binary.LittleEndian.Uint32(count[:])))
	}
	if err := <-written; err != nil {
		c.fail(err)
	}
	return counts
}

func send(w io.Writer, texts [][]byte) error {
	buffered := bufio.NewWriterSize(w, 1<<20)
	for _, text := range texts {
		var length [4]byte
		binary.LittleEndian.PutUint32(length[:], uint32(len(text)))
		_, first := buffered.Write(length[:])
		_, second := buffered.Write(text)
		if err := errors.Join(first, second); err != nil {
			return err
		}
	}
	return buffered.Flush()
}

// fail ends the process, so that all it had to say on stderr is there.
func (c *Counter) fail(err error) {
	_ = c.texts.Close()
	_ = c.process.Wait()
	c.tb.Fatalf("reference tokenizer %s: %v\n%s", c.vocab, err, c.stderr.Bytes())
}

// tree is the root of the source tree.
func tree() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(file), "..", "..", "..")
}
