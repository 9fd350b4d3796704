package main

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/weirproxy/weir/dialect/profile"
)

const adaptersHead = `# Adapters

<!-- Generated from dialect/profile by go generate ./internal/config/... Do not edit. -->

What ` + "`pools[].adapter`" + ` may be. An adapter is data: where the paths are, how a backend tells that it is well and how busy it
is, how it says what was used. Where the wire is OpenAI's, any other service can be called with the adapter ` + "`openai`" + `.

`

// adapters is the page of the adapter profiles as Markdown: a table of all, then what
// must be known of each, with its sources.
func adapters() []byte {
	var b bytes.Buffer
	b.WriteString(adaptersHead)
	b.WriteString("| adapter | of | base path | credential | health | running, waiting, KV cache | usage in streams | prefix cache |\n" +
		"| --- | --- | --- | --- | --- | --- | --- | --- |\n")
	for _, p := range profile.All() {
		cache := "no"
		if p.PrefixCache {
			cache = "yes"
		}
		fmt.Fprintf(&b, "| [%s](#%s) | %s | %s | %s | %s | %s | %s | %s |\n", p.Name, anchor(p.Title), p.Title, code(p.BasePath),
			code(p.Header), code(p.Health), signals(p.Metrics), p.StreamUsage, cache)
	}
	for _, p := range profile.All() {
		fmt.Fprintf(&b, "\n## %s\n\n", p.Title)
		for _, note := range p.Notes {
			fmt.Fprintf(&b, "- %s\n", note)
		}
		fmt.Fprintf(&b, "- Sources: %s.\n", strings.Join(p.Sources, "; "))
	}
	return b.Bytes()
}

// signals are the metrics' names, the newest of each, as a cell.
func signals(m profile.Metrics) string {
	if m.Path == "" {
		return ""
	}
	var all []string
	for _, names := range [][]string{m.Running, m.Waiting, m.KVUse} {
		if len(names) > 0 {
			all = append(all, code(names[0]))
		}
	}
	at := m.Path
	if m.Port != 0 {
		at = fmt.Sprintf(":%d%s", m.Port, m.Path)
	}
	return strings.Join(all, ", ") + " at " + code(at)
}

func code(s string) string {
	if s == "" {
		return ""
	}
	return "`" + s + "`"
}

// anchor is how a heading is linked to.
func anchor(title string) string {
	var b strings.Builder
	for _, r := range strings.ToLower(title) {
		switch {
		case r == ' ':
			b.WriteByte('-')
		case r == '-' || r >= 'a' && r <= 'z' || r >= '0' && r <= '9':
			b.WriteRune(r)
		}
	}
	return b.String()
}
