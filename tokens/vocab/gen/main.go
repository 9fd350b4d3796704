// Command gen packs the vocabularies that may be in weir's binary, from the files
// that scripts/fetch-tokenizers.sh fetches: go generate ./tokens/vocab, after make
// setup.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/weirproxy/weir/tokens/vocab/source"
)

func main() {
	for name := range source.Files {
		m, err := source.Read(filepath.Join("..", "..", source.Dir), name)
		if err == nil {
			err = os.WriteFile(filepath.Join("data", name+".bpe"), m.Encode(), 0o644)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "gen:", err)
			os.Exit(1)
		}
	}
}
