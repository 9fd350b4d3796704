// Command gen writes the host side of the bridge: an implementation of the
// SDK's ProxyWasmHost interface by the real host imports.
package main

import (
	"flag"
	"fmt"
	"os"
)

func main() {
	out := flag.String("o", "host_wasip1.go", "file to write")
	flag.Parse()
	if err := run(*out); err != nil {
		fmt.Fprintln(os.Stderr, "gen:", err)
		os.Exit(1)
	}
}

func run(out string) error {
	dir, err := sdkDir()
	if err != nil {
		return err
	}
	src, err := generate(dir)
	if err != nil {
		return err
	}
	return os.WriteFile(out, src, 0o644)
}
