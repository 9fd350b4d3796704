package cli

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	adminv1 "github.com/weirproxy/weir/proto/weir/admin/v1"
	"github.com/weirproxy/weir/proto/weir/admin/v1/adminv1connect"
)

func newKey() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "key",
		Short: "Make, rotate and end API keys of a running weir",
		Long: `Make, list, rotate, disable and revoke the API keys of a running weir, through the
socket in its data directory or, with --api, over TLS. Each change is in force when the
command returns, and is recorded: see 'weir audit list'.

A key that weir makes is weir_ and 38 letters and digits, of which the last 6 are a checksum.
For secret scanners: weir_[0-9A-Za-z]{38}`,
		Example: `  weir key create notebook-ci --application notebook --expires 90d
  weir key rotate notebook-ci --overlap 24h
  weir key revoke notebook-ci --reason "found in a log"`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newKeyCreate(), newKeyList(), newKeyShow(), newKeyRotate(),
		newKeyState("disable", "Refuse a key until it is enabled again"),
		newKeyState("enable", "Accept a disabled key again"),
		newKeyState("revoke", "End a key and all its secrets for good"), newKeyImport(), newKeyHash())
	return cmd
}

var keyFormats = []string{"table", "json"}

// keyFlags are what all commands about keys share.
type keyFlags struct {
	apiFlags
	format string
}

func (f *keyFlags) add(cmd *cobra.Command) {
	f.apiFlags.add(cmd)
	cmd.Flags().StringVar(&f.format, "format", "table", strings.Join(keyFormats, ", "))
	_ = cmd.RegisterFlagCompletionFunc("format", cobra.FixedCompletions(keyFormats, cobra.ShellCompDirectiveNoFileComp))
}

func (f *keyFlags) keys(cmd *cobra.Command) (adminv1connect.KeyServiceClient, error) {
	if err := f.checkFormat(cmd); err != nil {
		return nil, err
	}
	c, base, err := f.client(cmd)
	if err != nil {
		return nil, err
	}
	return adminv1connect.NewKeyServiceClient(c, base), nil
}

func (f *keyFlags) checkFormat(cmd *cobra.Command) error {
	if !slices.Contains(keyFormats, f.format) {
		return misuse(cmd, fmt.Errorf("--format: want %s, got %q", strings.Join(keyFormats, " or "), f.format))
	}
	return nil
}

func newKeyCreate() *cobra.Command {
	var f keyFlags
	var roles []string
	var expires string
	m := &adminv1.CreateKeyRequest{}
	cmd := &cobra.Command{
		Use:   "create NAME",
		Short: "Make an API key",
		Long: `Make an API key for an application or for a team. Its secret is printed this once and is
kept nowhere: weir has its keyed hash only.`,
		Example: `  weir key create notebook-ci --application notebook --expires 90d
  weir key create ops --team platform --roles staff --expires 2027-01-01T00:00:00Z --note "on-call laptop"
  weir key create ci --team platform --format json | jq -r .secret`,
		Args: oneArg("the name of the key"),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			m.Name, m.Roles = args[0], roles
			if m.ExpireTime, m.Ttl, err = parseExpiry(expires); err != nil {
				return misuse(cmd, fmt.Errorf("--expires: %w", err))
			}
			client, err := f.keys(cmd)
			if err != nil {
				return err
			}
			resp, err := client.CreateKey(cmd.Context(), connect.NewRequest(m))
			if err != nil {
				return err
			}
			return f.printSecret(cmd, resp.Msg, resp.Msg.Key, resp.Msg.Secret)
		},
	}
	f.add(cmd)
	cmd.Flags().StringVar(&m.Application, "application", "", "the application that the key is for")
	cmd.Flags().StringVar(&m.Team, "team", "", "the team, for a key without application")
	cmd.Flags().StringSliceVar(&roles, "roles", nil, "roles beside those of the application and the team")
	cmd.Flags().StringVar(&expires, "expires", "", "when it expires: 90d, 12h, or a time in RFC 3339 (default: never)")
	cmd.Flags().StringVar(&m.Note, "note", "", "what it is for")
	return cmd
}

// parseExpiry reads a time, or how long from now.
func parseExpiry(text string) (*timestamppb.Timestamp, *durationpb.Duration, error) {
	if text == "" {
		return nil, nil, nil
	}
	if at, err := time.Parse(time.RFC3339, text); err == nil {
		return timestamppb.New(at), nil, nil
	}
	d, err := parseSince(text)
	if err != nil {
		return nil, nil, fmt.Errorf("want 90d, 12h or a time as 2027-01-01T00:00:00Z, got %q", text)
	}
	return nil, durationpb.New(d), nil
}

func newKeyList() *cobra.Command {
	var f keyFlags
	var limit int32
	m := &adminv1.ListKeysRequest{}
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List API keys, and what becomes of a request with each",
		Example: "  weir key list --team research\n  weir key list --status key_orphaned\n  weir key list --format json",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := f.keys(cmd)
			if err != nil {
				return err
			}
			var list []*adminv1.Key
			for {
				m.PageSize = 1000
				if limit > 0 {
					m.PageSize = min(1000, limit-int32(len(list)))
				}
				resp, err := client.ListKeys(cmd.Context(), connect.NewRequest(m))
				if err != nil {
					return err
				}
				list = append(list, resp.Msg.Keys...)
				if m.PageToken = resp.Msg.NextPageToken; m.PageToken == "" || limit > 0 && len(list) >= int(limit) {
					break
				}
			}
			return f.print(cmd.OutOrStdout(), &adminv1.ListKeysResponse{Keys: list, NextPageToken: m.PageToken}, list)
		},
	}
	f.add(cmd)
	cmd.Flags().StringVar(&m.Application, "application", "", "only keys of this application")
	cmd.Flags().StringVar(&m.Team, "team", "", "only keys of this team and its applications")
	cmd.Flags().StringVar(&m.Status, "status", "", "only keys that are active, or refused: key_disabled, key_expired, key_revoked, key_orphaned")
	cmd.Flags().Int32Var(&limit, "limit", 0, "at most this many (default: all)")
	return cmd
}

func newKeyShow() *cobra.Command {
	var f keyFlags
	var stdin bool
	cmd := &cobra.Command{
		Use:   "show NAME",
		Short: "Show one API key, or whose a secret is that was found somewhere",
		Example: `  weir key show notebook-ci
  pbpaste | weir key show --stdin`,
		Args: func(cmd *cobra.Command, args []string) error {
			if stdin {
				return noArgs(cmd, args)
			}
			return oneArg("the name of the key, or --stdin")(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			m := &adminv1.GetKeyRequest{}
			if stdin {
				line, err := bufio.NewReader(io.LimitReader(cmd.InOrStdin(), 64<<10)).ReadString('\n')
				if err != nil && !errors.Is(err, io.EOF) {
					return fmt.Errorf("stdin: %w", err)
				}
				secret := strings.TrimSpace(line)
				if secret == "" {
					return misuse(cmd, errors.New("no key on stdin"))
				}
				m.Key = &adminv1.GetKeyRequest_Secret{Secret: secret}
			} else {
				m.Key = &adminv1.GetKeyRequest_Name{Name: args[0]}
			}
			client, err := f.keys(cmd)
			if err != nil {
				return err
			}
			resp, err := client.GetKey(cmd.Context(), connect.NewRequest(m))
			if err != nil {
				return err
			}
			return f.print(cmd.OutOrStdout(), resp.Msg, []*adminv1.Key{resp.Msg.Key})
		},
	}
	f.add(cmd)
	cmd.Flags().BoolVar(&stdin, "stdin", false, "read a secret from stdin and find its key")
	return cmd
}

func newKeyRotate() *cobra.Command {
	var f keyFlags
	var overlap, expires string
	cmd := &cobra.Command{
		Use:   "rotate NAME",
		Short: "Give an API key a new secret",
		Long: `Give an API key a new secret, which is printed this once. The old one opens until the
overlap ends, so that callers can change over without an interruption.`,
		Example: "  weir key rotate notebook-ci\n  weir key rotate notebook-ci --overlap 0s",
		Args:    oneArg("the name of the key"),
		RunE: func(cmd *cobra.Command, args []string) error {
			m := &adminv1.RotateKeyRequest{Name: args[0]}
			d, err := time.ParseDuration(overlap)
			if err != nil {
				if d, err = parseSince(overlap); err != nil {
					return misuse(cmd, fmt.Errorf("--overlap: %w", err))
				}
			}
			m.Overlap = durationpb.New(d)
			at, ttl, err := parseExpiry(expires)
			if err != nil {
				return misuse(cmd, fmt.Errorf("--expires: %w", err))
			}
			if m.ExpireTime = at; ttl != nil {
				m.ExpireTime = timestamppb.New(time.Now().Add(ttl.AsDuration()))
			}
			client, err := f.keys(cmd)
			if err != nil {
				return err
			}
			resp, err := client.RotateKey(cmd.Context(), connect.NewRequest(m))
			if err != nil {
				return err
			}
			return f.printSecret(cmd, resp.Msg, resp.Msg.Key, resp.Msg.Secret)
		},
	}
	f.add(cmd)
	cmd.Flags().StringVar(&overlap, "overlap", "24h", "how long the old secret opens: 24h, 7d; 0s is not at all")
	cmd.Flags().StringVar(&expires, "expires", "", "when the key expires from now on: 90d, 12h, or a time in RFC 3339 (default: as before)")
	return cmd
}

// newKeyState is disable, enable or revoke.
func newKeyState(verb, short string) *cobra.Command {
	var f keyFlags
	var reason string
	cmd := &cobra.Command{
		Use:     verb + " NAME",
		Short:   short,
		Long:    short + ". It is in force when the command returns, and within two seconds everywhere.\nKeys of the configuration file can be named too.",
		Example: "  weir key " + verb + " notebook-ci --reason \"found in a log\"",
		Args:    oneArg("the name of the key"),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := f.keys(cmd)
			if err != nil {
				return err
			}
			key, err := setState(cmd, client, verb, args[0], reason)
			if err != nil {
				return err
			}
			return f.print(cmd.OutOrStdout(), key, []*adminv1.Key{key})
		},
	}
	f.add(cmd)
	cmd.Flags().StringVar(&reason, "reason", "", "why, for the audit")
	return cmd
}

func setState(cmd *cobra.Command, client adminv1connect.KeyServiceClient, verb, name, reason string) (*adminv1.Key, error) {
	if verb == "revoke" {
		resp, err := client.RevokeKey(cmd.Context(), connect.NewRequest(&adminv1.RevokeKeyRequest{Name: name, Reason: reason}))
		if err != nil {
			return nil, err
		}
		return resp.Msg.Key, nil
	}
	state := adminv1.KeyState_KEY_STATE_ACTIVE
	if verb == "disable" {
		state = adminv1.KeyState_KEY_STATE_DISABLED
	}
	resp, err := client.SetKeyState(cmd.Context(), connect.NewRequest(&adminv1.SetKeyStateRequest{Name: name, State: state, Reason: reason}))
	if err != nil {
		return nil, err
	}
	return resp.Msg.Key, nil
}

// printSecret prints a new secret: the only thing on stdout, so that it can be taken
// by a script.
func (f *keyFlags) printSecret(cmd *cobra.Command, m proto.Message, key *adminv1.Key, secret string) error {
	if secret == "" {
		return errors.New("the answer has no secret")
	}
	if f.format == "json" {
		return printJSON(cmd.OutOrStdout(), m)
	}
	if err := printKeys(cmd.ErrOrStderr(), []*adminv1.Key{key}); err != nil {
		return err
	}
	fmt.Fprintln(cmd.ErrOrStderr(), "The secret is shown this once:")
	_, err := fmt.Fprintln(cmd.OutOrStdout(), secret)
	return err
}

func (f *keyFlags) print(w io.Writer, m proto.Message, list []*adminv1.Key) error {
	if f.format == "json" {
		return printJSON(w, m)
	}
	return printKeys(w, list)
}

func printJSON(w io.Writer, m proto.Message) error {
	b, err := protojson.MarshalOptions{UseProtoNames: true, Multiline: true}.Marshal(m)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "%s\n", b)
	return err
}

func printKeys(w io.Writer, list []*adminv1.Key) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "KEY\tSTATUS\tAPPLICATION\tTEAM\tROLES\tEXPIRES\tFROM\tNOTE")
	for _, k := range list {
		status := "active"
		if k.Refused != "" {
			status = k.Refused
		}
		if k.Gone != "" {
			status += " (no " + k.Gone + ")"
		}
		if k.OverlapEndTime != nil {
			status += ", old secret until " + date(k.OverlapEndTime)
		}
		from := "control store"
		if k.Source == adminv1.KeySource_KEY_SOURCE_CONFIG {
			from = "configuration"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", k.Name, status, dash(k.Application), dash(k.Team), dash(strings.Join(k.Roles, ",")), date(k.ExpireTime), from, dash(k.Note))
	}
	return t.Flush()
}

func date(t *timestamppb.Timestamp) string {
	if t == nil {
		return "never"
	}
	return t.AsTime().Format(time.RFC3339)
}

func dash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}
