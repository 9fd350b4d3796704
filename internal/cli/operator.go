package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/weirproxy/weir/envoy"
	"github.com/weirproxy/weir/internal/app"
)

// operatorFlags say which weir is asked by its operator's socket.
type operatorFlags struct{ file, data string }

func (f *operatorFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.file, "config", "", "configuration that names the data directory")
	cmd.Flags().StringVar(&f.data, "data", "", "data directory of the running weir (default: ./"+app.DefaultDataDir+")")
	_ = cmd.MarkFlagFilename("config", "yaml", "yml")
	_ = cmd.MarkFlagDirname("data")
}

// dir is the data directory of that weir.
func (f *operatorFlags) dir() (string, error) { return dataDir(f.data, f.file) }

// reportFlags are those of commands that print what it answers.
type reportFlags struct {
	operatorFlags
	format string
}

func (f *reportFlags) add(cmd *cobra.Command) {
	f.operatorFlags.add(cmd)
	cmd.Flags().StringVar(&f.format, "format", "text", "text or json")
	_ = cmd.RegisterFlagCompletionFunc("format", cobra.FixedCompletions([]string{"text", "json"}, cobra.ShellCompDirectiveNoFileComp))
}

func (f *reportFlags) check(cmd *cobra.Command) error {
	if f.format != "text" && f.format != "json" {
		return misuse(cmd, fmt.Errorf("--format: want text or json, got %q", f.format))
	}
	return nil
}

// print writes a report as JSON, or as text does it.
func (f *reportFlags) print(w io.Writer, report any, text func(io.Writer) error) error {
	if f.format == "text" {
		return text(w)
	}
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(report)
}

// ask asks the weir that runs on the data directory.
func ask(ctx context.Context, dir, path string, in, out any) error {
	if _, err := os.Stat(dir); err != nil { // nothing is made in the place of a name that is misspelt
		return fmt.Errorf("data directory: %w (name it with --data)", err)
	}
	runtime, err := envoy.RuntimeDir(dir)
	if err != nil {
		return err
	}
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(runtime, app.OperatorSocket))
	}}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://weir"+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("no weir answers on data directory %s (name it with --data): %w", dir, errors.Unwrap(err))
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return errors.New(strings.TrimSpace(string(answer)))
	}
	return json.Unmarshal(answer, out)
}
