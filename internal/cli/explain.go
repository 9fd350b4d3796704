package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/weirproxy/weir/extproc/explain"
	"github.com/weirproxy/weir/internal/app"
	"github.com/weirproxy/weir/internal/config"
)

func newExplain() *cobra.Command {
	var file, data, body, format, at string
	var headers []string
	in := explain.Input{}
	cmd := &cobra.Command{
		Use:   "explain --config FILE --key K --path P",
		Short: "Tell what would be decided about a request, and why",
		Long: `Let the evaluator that decides in production decide about a request, and tell what each
stage said: who calls, which rule routes, which targets are tried and which are not and
why, what is reserved. Nothing is sent and nothing is recorded; limits are taken as unused.
Exits with 0 when the request would be allowed, with 3 when it would be refused.`,
		Example: `  weir explain --config weir.yaml --key demo --path /v1/chat/completions --body request.json
  weir explain --config weir.yaml --key "$OPENAI_API_KEY" --path /v1/models
  echo '{"model":"chat","messages":[]}' | weir explain --config weir.yaml --key demo --path /v1/chat/completions --body - --format json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := required(cmd, "config", "key", "path"); err != nil {
				return err
			}
			if format != "text" && format != "json" {
				return misuse(cmd, fmt.Errorf("--format: want text or json, got %q", format))
			}
			if err := readInput(cmd, &in, body, at, headers); err != nil {
				return err
			}
			p, err := config.Load(file, config.Options{DataDir: data, ReadOnly: true})
			if err != nil {
				return err
			}
			if err := app.AttachStoredKeys(cmd.Context(), p); err != nil {
				return err
			}
			log := slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil))
			r := explain.Explain(cmd.Context(), app.NewPipeline(log), p, in)
			if err := writeResult(cmd.OutOrStdout(), r, format); err != nil {
				return err
			}
			if !r.Allowed() {
				return exit{exitRefused}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&file, "config", "", "configuration file (YAML)")
	cmd.Flags().StringVar(&data, "data", "", "data directory with generated secrets")
	cmd.Flags().StringVar(&in.Key, "key", "", "the key, or its name")
	cmd.Flags().StringVar(&in.Path, "path", "", "path of the request, as /v1/chat/completions")
	cmd.Flags().StringVar(&in.Method, "method", "", "method of the request (default: POST with a body, GET without)")
	cmd.Flags().StringVar(&body, "body", "", "file with the body; - is stdin")
	cmd.Flags().StringArrayVar(&headers, "header", nil, "header of the request, as 'name: value'; may be given several times")
	cmd.Flags().StringVar(&at, "at", "", "the time that rules read as now, in RFC 3339 (default: now)")
	cmd.Flags().StringVar(&format, "format", "text", "text or json")
	_ = cmd.MarkFlagFilename("config", "yaml", "yml")
	_ = cmd.MarkFlagFilename("body")
	_ = cmd.RegisterFlagCompletionFunc("format", cobra.FixedCompletions([]string{"text", "json"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func readInput(cmd *cobra.Command, in *explain.Input, body, at string, headers []string) (err error) {
	switch body {
	case "":
	case "-":
		in.Body, err = io.ReadAll(cmd.InOrStdin())
	default:
		in.Body, err = os.ReadFile(body)
	}
	if err != nil {
		return fmt.Errorf("--body: %w", err)
	}
	if in.Method == "" && body != "" {
		in.Method = http.MethodPost // an empty file is a POST without a body, not a GET
	}
	in.Now = time.Now()
	if at != "" {
		if in.Now, err = time.Parse(time.RFC3339, at); err != nil {
			return misuse(cmd, fmt.Errorf("--at: %w", err))
		}
	}
	in.Headers = map[string]string{}
	for _, h := range headers {
		name, value, ok := strings.Cut(h, ":")
		if !ok {
			return misuse(cmd, fmt.Errorf("--header: want 'name: value', got %q", h))
		}
		in.Headers[strings.ToLower(strings.TrimSpace(name))] = strings.TrimSpace(value)
	}
	return nil
}

func writeResult(w io.Writer, r *explain.Result, format string) error {
	if format == "text" {
		return r.WriteText(w)
	}
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(r)
}
