package cli

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"github.com/weirproxy/weir/internal/ai"
	adminv1 "github.com/weirproxy/weir/proto/weir/admin/v1"
	"github.com/weirproxy/weir/proto/weir/admin/v1/adminv1connect"
)

func newBudget() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "budget",
		Short: "Show what limits have counted, and open budgets that are used up",
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newBudgetList(), newBudgetReset())
	return cmd
}

// scopeFlag reads "team=research,model=chat".
func scopeFlag(text string) (map[string]string, error) {
	scope := map[string]string{}
	for part := range strings.SplitSeq(text, ",") {
		if text == "" {
			break
		}
		d, v, ok := strings.Cut(part, "=")
		if !ok || d == "" || v == "" {
			return nil, fmt.Errorf("--scope: want team=research,model=chat, got %q", part)
		}
		scope[d] = v
	}
	return scope, nil
}

const scopeHelp = "only counts of this scope, as team=research,model=chat: by organisation, team, application, key, user, model, pool"

func (f *keyFlags) budgets(cmd *cobra.Command) (adminv1connect.BudgetServiceClient, error) {
	if err := f.checkFormat(cmd); err != nil {
		return nil, err
	}
	c, base, err := f.client(cmd)
	if err != nil {
		return nil, err
	}
	return adminv1connect.NewBudgetServiceClient(c, base), nil
}

func newBudgetList() *cobra.Command {
	var f keyFlags
	var scope string
	m := &adminv1.ListBudgetsRequest{}
	cmd := &cobra.Command{
		Use:     "list [LIMIT]",
		Short:   "List what is used and left of every limit that has counted something",
		Example: "  weir budget list\n  weir budget list team-month --scope team=research\n  weir budget list --format json",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if m.Scope, err = scopeFlag(scope); err != nil {
				return misuse(cmd, err)
			}
			if len(args) > 0 {
				m.Name = args[0]
			}
			api, err := f.budgets(cmd)
			if err != nil {
				return err
			}
			resp, err := api.ListBudgets(cmd.Context(), connect.NewRequest(m))
			if err != nil {
				return err
			}
			if f.format == "json" {
				return printJSON(cmd.OutOrStdout(), resp.Msg)
			}
			if err := printBudgets(cmd.OutOrStdout(), resp.Msg.Budgets); err != nil {
				return err
			}
			if next := resp.Msg.NextPageToken; next != "" {
				fmt.Fprintf(cmd.ErrOrStderr(), "there are more: --page %s\n", next)
			}
			return nil
		},
	}
	f.add(cmd)
	cmd.Flags().StringVar(&scope, "scope", "", scopeHelp)
	cmd.Flags().Int32Var(&m.PageSize, "limit", 100, "at most this many, up to 1000")
	cmd.Flags().StringVar(&m.PageToken, "page", "", "the next_page_token of the list before")
	return cmd
}

func newBudgetReset() *cobra.Command {
	var f keyFlags
	var scope string
	var all bool
	m := &adminv1.ResetBudgetRequest{}
	cmd := &cobra.Command{
		Use:   "reset LIMIT (--scope S | --all)",
		Short: "Give back what was used of a limit, and close its breaker",
		Long: `Give back all that was used of a limit in a scope, and close its breaker; what open
requests hold stays held. It needs the role finance, and is audited (weir audit list).
What was used stays in weir usage: it was used.`,
		Example: "  weir budget reset team-month --scope team=research --note \"agreed with the CFO\"\n  weir budget reset egress-day --all",
		Args:    oneArg("the name of a limit"),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			m.Name = args[0]
			if m.Scope, err = scopeFlag(scope); err != nil {
				return misuse(cmd, err)
			}
			if all == (len(m.Scope) > 0) {
				return misuse(cmd, errors.New("say which counts: --scope, or --all"))
			}
			m.All = all
			api, err := f.budgets(cmd)
			if err != nil {
				return err
			}
			resp, err := api.ResetBudget(cmd.Context(), connect.NewRequest(m))
			if err != nil {
				return err
			}
			if f.format == "json" {
				return printJSON(cmd.OutOrStdout(), resp.Msg)
			}
			if len(resp.Msg.Budgets) == 0 {
				_, err := fmt.Fprintln(cmd.OutOrStdout(), "nothing was used")
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), "given back, as it was:")
			return printBudgets(cmd.OutOrStdout(), resp.Msg.Budgets)
		},
	}
	f.add(cmd)
	cmd.Flags().StringVar(&scope, "scope", "", scopeHelp)
	cmd.Flags().BoolVar(&all, "all", false, "all counts of the limit")
	cmd.Flags().StringVar(&m.Note, "note", "", "why; it stands in the audit")
	return cmd
}

func printBudgets(w io.Writer, list []*adminv1.Budget) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "LIMIT\tSCOPE\tUNIT\tIN A\tAMOUNT\tUSED\tRESERVED\tLEFT\tBREAKER\tEMPTY AT")
	for _, b := range list {
		n := func(v int64) string {
			if b.Unit == "usd" {
				return "$" + ai.NanoUSD(v).Decimal()
			}
			return strconv.FormatInt(v, 10)
		}
		breaker, empty := "-", "-"
		if b.Open {
			breaker = "open"
		}
		if b.ResetTime != nil {
			empty = date(b.ResetTime)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", b.Name, scopeText(b.Scope), b.Unit, dash(b.Span),
			n(b.Amount), n(b.Used), n(b.Reserved), n(b.Left), breaker, empty)
	}
	return t.Flush()
}

func scopeText(scope map[string]string) string {
	var parts []string
	for _, d := range slices.Sorted(maps.Keys(scope)) {
		parts = append(parts, d+"="+strings.ToValidUTF8(strconv.Quote(scope[d]), "?"))
	}
	if len(parts) == 0 {
		return "all"
	}
	return strings.Join(parts, ",")
}
