package cli

import (
	"fmt"
	"text/tabwriter"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	adminv1 "github.com/weirproxy/weir/proto/weir/admin/v1"
	"github.com/weirproxy/weir/proto/weir/admin/v1/adminv1connect"
)

func newAudit() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "Tell who changed what through the admin API",
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newAuditList())
	return cmd
}

func newAuditList() *cobra.Command {
	var f keyFlags
	var since string
	m := &adminv1.ListAuditRequest{}
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List changes and denied calls, the newest first",
		Example: "  weir audit list --since 7d\n  weir audit list --object key/notebook-ci\n  weir audit list --outcome denied --format json",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := f.checkFormat(cmd); err != nil {
				return err
			}
			if since != "" {
				d, err := parseSince(since)
				if err != nil {
					return misuse(cmd, fmt.Errorf("--since: %w", err))
				}
				m.Since = timestamppb.New(time.Now().Add(-d))
			}
			c, base, err := f.client(cmd)
			if err != nil {
				return err
			}
			resp, err := adminv1connect.NewAuditServiceClient(c, base).ListAudit(cmd.Context(), connect.NewRequest(m))
			if err != nil {
				return err
			}
			if f.format == "json" {
				return printJSON(cmd.OutOrStdout(), resp.Msg)
			}
			t := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintln(t, "TIME\tACTOR\tACTION\tOBJECT\tOUTCOME\tBEFORE\tAFTER\tDETAIL")
			for _, r := range resp.Msg.Records {
				fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", date(r.Time), r.Actor, r.Action, dash(r.Object), r.Outcome, dash(r.Before), dash(r.After), dash(r.Detail))
			}
			return t.Flush()
		},
	}
	f.add(cmd)
	cmd.Flags().StringVar(&since, "since", "", "how far back: 90m, 24h, 7d (default: everything)")
	cmd.Flags().StringVar(&m.Actor, "actor", "", "only of this caller, as socket:uid=0")
	cmd.Flags().StringVar(&m.Action, "action", "", "only of this kind, as key.revoke")
	cmd.Flags().StringVar(&m.Object, "object", "", "only about this, as key/notebook-ci")
	cmd.Flags().StringVar(&m.Outcome, "outcome", "", "done, denied or failed")
	cmd.Flags().Int32Var(&m.PageSize, "limit", 100, "at most this many, up to 1000")
	cmd.Flags().StringVar(&m.PageToken, "page", "", "the next_page_token of the list before")
	return cmd
}
