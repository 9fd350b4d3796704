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

	"github.com/weirproxy/weir/envoy"
	"github.com/weirproxy/weir/internal/app"
)

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
