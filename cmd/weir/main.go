// Command weir is a token gateway for Envoy: see `weir help`.
package main

import (
	"os"

	"github.com/weirproxy/weir/internal/cli"
)

func main() { os.Exit(cli.Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }
