package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/weirproxy/weir/extproc/explain"
	"github.com/weirproxy/weir/internal/app"
	"github.com/weirproxy/weir/internal/config"
)

func newExplain() *cobra.Command {
	var file, data, body, format, at, claims string
	var headers []string
	var live bool
	in := explain.Input{}
	cmd := &cobra.Command{
		Use:   "explain --config FILE (--key K | --spiffe-id ID | --claims FILE) --path P",
		Short: "Tell what would be decided about a request, and why",
		Long: `Let the evaluator that decides in production decide about a request, and tell what each
stage said: who calls, which rule routes, which targets are tried and which are not and
why, what is reserved. Nothing is sent and nothing is recorded; limits are taken as unused.
Who calls is a key, a workload, or a token with these claims, which is taken as verified.
With --live the weir that runs on the data directory is asked, by the configuration that is
in force there, and what is left of each limit is told; nothing is taken from them.
Exits with 0 when the request would be allowed, with 3 when it would be refused.`,
		Example: `  weir explain --config weir.yaml --key demo --path /v1/chat/completions --body request.json
  weir explain --config weir.yaml --key "$OPENAI_API_KEY" --path /v1/models
  weir explain --config weir.yaml --claims claims.json --client-ip 10.1.2.3 --path /v1/models
  weir explain --live --data /var/lib/weir --key demo --path /v1/chat/completions --body request.json
  echo '{"model":"chat","messages":[]}' | weir explain --config weir.yaml --key demo --path /v1/chat/completions --body - --format json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			wanted := []string{"config", "path"}
			if live {
				wanted = wanted[1:]
			}
			if err := required(cmd, wanted...); err != nil {
				return err
			}
			if err := readCaller(cmd, &in, claims); err != nil {
				return err
			}
			if format != "text" && format != "json" {
				return misuse(cmd, fmt.Errorf("--format: want text or json, got %q", format))
			}
			if err := readInput(cmd, &in, body, at, headers); err != nil {
				return err
			}
			r, err := explained(cmd, in, live, data, file)
			if err != nil {
				return err
			}
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
	cmd.Flags().StringVar(&data, "data", "", "data directory with generated secrets; with --live, that of the running weir")
	cmd.Flags().BoolVar(&live, "live", false, "ask the running weir, by its configuration and by what its limits have counted")
	cmd.Flags().StringVar(&in.Key, "key", "", "the key, or its name")
	cmd.Flags().StringVar(&in.SPIFFEID, "spiffe-id", "", "the SPIFFE ID of a workload, instead of a key")
	cmd.Flags().StringVar(&claims, "claims", "", "file with the claims of a token (a JSON object), instead of a key; - is stdin")
	cmd.Flags().StringVar(&in.ClientIP, "client-ip", "", "the client's address, which networks are judged by (default: not known)")
	cmd.Flags().StringVar(&in.Path, "path", "", "path of the request, as /v1/chat/completions")
	cmd.Flags().StringVar(&in.Method, "method", "", "method of the request (default: POST with a body, GET without)")
	cmd.Flags().StringVar(&body, "body", "", "file with the body; - is stdin")
	cmd.Flags().StringArrayVar(&headers, "header", nil, "header of the request, as 'name: value'; may be given several times")
	cmd.Flags().StringVar(&at, "at", "", "the time that rules read as now, in RFC 3339 (default: now)")
	cmd.Flags().StringVar(&format, "format", "text", "text or json")
	_ = cmd.MarkFlagFilename("config", "yaml", "yml")
	_ = cmd.MarkFlagFilename("body")
	_ = cmd.MarkFlagFilename("claims", "json")
	_ = cmd.RegisterFlagCompletionFunc("format", cobra.FixedCompletions([]string{"text", "json"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// readCaller reads who calls and from where: one of a key, a workload and claims.
func readCaller(cmd *cobra.Command, in *explain.Input, claims string) (err error) {
	given := 0
	for _, flag := range []string{in.Key, in.SPIFFEID, claims} {
		if flag != "" {
			given++
		}
	}
	if given != 1 {
		return misuse(cmd, errors.New("want one of --key, --spiffe-id and --claims"))
	}
	if in.ClientIP != "" {
		if _, err := netip.ParseAddr(in.ClientIP); err != nil {
			return misuse(cmd, fmt.Errorf("--client-ip: %w", err))
		}
	}
	switch claims {
	case "":
		return nil
	case "-":
		in.Claims, err = io.ReadAll(cmd.InOrStdin())
	default:
		in.Claims, err = os.ReadFile(claims)
	}
	if err != nil {
		return fmt.Errorf("--claims: %w", err)
	}
	return nil
}

// explained lets the running weir decide, or the evaluator in this process.
func explained(cmd *cobra.Command, in explain.Input, live bool, data, file string) (*explain.Result, error) {
	if live {
		dir, err := dataDir(data, file)
		if err != nil {
			return nil, err
		}
		r := new(explain.Result)
		return r, ask(cmd.Context(), dir, app.ExplainPath, in, r)
	}
	p, err := config.Load(file, config.Options{DataDir: data, ReadOnly: true})
	if err != nil {
		return nil, err
	}
	if err := app.AttachStoredKeys(cmd.Context(), p); err != nil {
		return nil, err
	}
	log := slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil))
	return explain.Explain(cmd.Context(), app.NewPipeline(log), p, in), nil
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
