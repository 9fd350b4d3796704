package envoy

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// record is what a later weir must know of an Envoy to find it again.
type record struct {
	PID      int    `json:"pid"`
	Started  string `json:"started"` // clock ticks since boot: tells processes with one id apart
	Admin    string `json:"admin"`
	Identity string `json:"identity"` // hash of the binary, the flags and the bootstrap
}

const recordsFile = "running.json"

// recordsMu orders changes of the file by one weir; two weirs on one data
// directory are excluded by the data directory's own lock.
var recordsMu sync.Mutex

// identity is equal for Envoys that are started in the same way.
func (o *Options) identity() (string, error) {
	b := o.Bootstrap
	b.Admin = "unix:/any"
	text, err := Bootstrap(b)
	if err != nil {
		return "", err
	}
	h := sha256.New()
	for _, part := range append([]string{o.Binary.Path, o.Binary.Version, o.RuntimeDir}, o.flags()...) {
		fmt.Fprintf(h, "%d:%s", len(part), part)
	}
	h.Write(text)
	return hex.EncodeToString(h.Sum(nil)[:16]), nil
}

// leftovers are the recorded Envoys that still run. A record that cannot be read
// is none: the worst that follows is an Envoy that nobody takes over.
func leftovers(dir string) []record {
	recordsMu.Lock()
	defer recordsMu.Unlock()
	return readRecords(dir)
}

func readRecords(dir string) []record {
	b, err := os.ReadFile(filepath.Join(dir, recordsFile))
	if err != nil {
		return nil
	}
	var list []record
	if json.Unmarshal(b, &list) != nil {
		return nil
	}
	return slices.DeleteFunc(list, func(r record) bool { return !r.alive() })
}

func saveRecords(dir string, list []record) error {
	recordsMu.Lock()
	defer recordsMu.Unlock()
	return writeRecords(dir, list)
}

func dropRecord(dir string, gone record) {
	recordsMu.Lock()
	defer recordsMu.Unlock()
	list := slices.DeleteFunc(readRecords(dir), func(r record) bool { return r == gone })
	_ = writeRecords(dir, list) // a record of a process that has ended is ignored
}

func writeRecords(dir string, list []record) error {
	b, err := json.Marshal(list)
	if err != nil {
		return fmt.Errorf("envoy: %w", err)
	}
	path := filepath.Join(dir, recordsFile)
	if err := os.WriteFile(path+".new", b, 0o600); err != nil {
		return fmt.Errorf("envoy: %w", err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("envoy: %w", err)
	}
	return nil
}

// alive tells that the very process still runs.
func (r record) alive() bool {
	return r.Started != "" && startTicks(r.PID) == r.Started
}

// startTicks reads when a process started, in clock ticks since boot (proc(5),
// /proc/pid/stat, field 22); "" when it does not run or is a zombie.
func startTicks(pid int) string {
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return ""
	}
	end := bytes.LastIndexByte(b, ')') // of the name, which may hold anything
	if end < 0 {
		return ""
	}
	fields := strings.Fields(string(b[end+1:]))
	const state, started = 0, 19 // counted from field 3
	if len(fields) <= started || fields[state] == "Z" || fields[state] == "X" {
		return ""
	}
	return fields[started]
}

// freeAdminSocket is a name that none of the running Envoys has.
func freeAdminSocket(running []record) string {
	for i := 0; ; i++ {
		name := "envoy-admin-" + strconv.Itoa(i) + ".sock"
		if !slices.ContainsFunc(running, func(r record) bool { return strings.HasSuffix(r.Admin, "/"+name) }) {
			return name
		}
	}
}
