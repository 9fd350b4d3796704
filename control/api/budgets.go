package api

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/weirproxy/weir/control"
	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/internal/plan"
	"github.com/weirproxy/weir/limit"
	adminv1 "github.com/weirproxy/weir/proto/weir/admin/v1"
	"github.com/weirproxy/weir/proto/weir/admin/v1/adminv1connect"
)

// Budgets are the counts of the limits in force.
type Budgets interface {
	// Limit finds a limit by its name; nil when there is none.
	Limit(name string) *plan.Limit
	// All tells of every count that is not empty, in no order.
	All(ctx context.Context) ([]limit.State, error)
	// Reset gives back what was used in the scopes that match and closes their
	// breakers, for good when it returns nil. It returns what the counts were.
	Reset(ctx context.Context, l *plan.Limit, match func(limit.Scope) bool) ([]limit.State, error)
}

// budgets is BudgetService.
type budgets struct {
	Budgets
	store control.Store
	now   func() time.Time
}

var _ adminv1connect.BudgetServiceHandler = (*budgets)(nil)

// dimensions are by what a scope can be told apart.
var dimensions = []string{"organisation", "team", "application", "key", "user", "model", "pool"}

// matcher selects the scopes that have these values.
func matcher(scope map[string]string) (func(limit.Scope) bool, error) {
	for d := range scope {
		if !slices.Contains(dimensions, d) {
			return nil, fmt.Errorf("scope: %w: %q is none of %s", control.ErrInvalid, printable(d), strings.Join(dimensions, ", "))
		}
	}
	return func(s limit.Scope) bool {
		have := s.Map()
		for d, v := range scope {
			if have[d] != v {
				return false
			}
		}
		return true
	}, nil
}

func (b *budgets) ListBudgets(ctx context.Context, req *connect.Request[adminv1.ListBudgetsRequest]) (*connect.Response[adminv1.ListBudgetsResponse], error) {
	m := req.Msg
	size, err := pageSize(m.PageSize)
	if err != nil {
		return nil, err
	}
	if m.Name != "" && b.Limit(m.Name) == nil {
		return nil, fmt.Errorf("limit %q: %w", printable(m.Name), control.ErrNotFound)
	}
	match, err := matcher(m.Scope)
	if err != nil {
		return nil, err
	}
	skip := 0
	if m.PageToken != "" {
		if skip, err = strconv.Atoi(m.PageToken); err != nil || skip < 1 {
			return nil, fmt.Errorf("page_token: %w: it is none of this list", control.ErrInvalid)
		}
	}
	all, err := b.All(ctx)
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(s limit.State) bool { return m.Name != "" && s.Limit.Name != m.Name || !match(s.Scope) })
	slices.SortFunc(all, func(x, y limit.State) int {
		return cmp.Or(cmp.Compare(x.Limit.Name, y.Limit.Name), cmp.Compare(x.Scope.String(), y.Scope.String()))
	})
	all = all[min(skip, len(all)):]
	resp := &adminv1.ListBudgetsResponse{}
	if len(all) > size {
		all = all[:size]
		resp.NextPageToken = strconv.Itoa(skip + size)
	}
	resp.Budgets = b.messages(all)
	return connect.NewResponse(resp), nil
}

func (b *budgets) messages(states []limit.State) []*adminv1.Budget {
	list := make([]*adminv1.Budget, len(states))
	for i, s := range states {
		list[i] = &adminv1.Budget{
			Name: s.Limit.Name, Scope: s.Scope.Map(), Unit: string(s.Limit.Unit), Span: s.Limit.Span(),
			Amount: s.Limit.Amount, Used: s.Used, Reserved: s.Reserved, Left: s.Left, Open: s.Open,
		}
		if s.Reset > 0 {
			list[i].ResetTime = timestamppb.New(b.now().Add(s.Reset))
		}
	}
	return list
}

const maxNote = 256 // bytes

func (b *budgets) ResetBudget(ctx context.Context, req *connect.Request[adminv1.ResetBudgetRequest]) (*connect.Response[adminv1.ResetBudgetResponse], error) {
	m := req.Msg
	l := b.Limit(m.Name)
	if l == nil {
		return nil, fmt.Errorf("limit %q: %w", printable(m.Name), control.ErrNotFound)
	}
	if m.All == (len(m.Scope) > 0) {
		return nil, fmt.Errorf("%w: say which counts: a scope, or all", control.ErrInvalid)
	}
	for d := range m.Scope {
		if slices.Contains(dimensions, d) && !l.Apart(d) {
			return nil, fmt.Errorf("scope: %w: limit %q has no count for each %s (its per does not name it)", control.ErrInvalid, l.Name, d)
		}
	}
	match, err := matcher(m.Scope)
	if err != nil {
		return nil, err
	}
	if len(m.Note) > maxNote {
		return nil, fmt.Errorf("note: %w: longer than %d bytes", control.ErrInvalid, maxNote)
	}
	was, err := b.Reset(ctx, l, match)
	if err != nil {
		return nil, err
	}
	actor, _ := ctx.Value(actorKey{}).(control.Actor)
	record := control.Record{
		Time: b.now(), Actor: actor.Name, Roles: actor.Roles, Action: "budget.reset", Object: "budget/" + l.Name,
		Before: before(was), After: "nothing used", Outcome: control.Done, Detail: printable(m.Note),
	}
	if err := b.store.Note(context.WithoutCancel(ctx), record); err != nil {
		return nil, err
	}
	return connect.NewResponse(&adminv1.ResetBudgetResponse{Budgets: b.messages(was)}), nil
}

// maxListed bounds how many counts the audit names.
const maxListed = 8

// before is what the counts were, in a line.
func before(was []limit.State) string {
	var parts []string
	for i, s := range was {
		if i == maxListed {
			parts = append(parts, fmt.Sprintf("and %d more", len(was)-maxListed))
			break
		}
		used := strconv.FormatInt(s.Used, 10)
		if s.Limit.Unit == plan.UnitUSD {
			used = "$" + ai.NanoUSD(s.Used).Decimal()
		}
		state := ""
		if s.Open {
			state = ", breaker open"
		}
		parts = append(parts, fmt.Sprintf("%s: %s used%s", printable(s.Scope.String()), used, state))
	}
	if len(parts) == 0 {
		return "nothing used"
	}
	return strings.Join(parts, "; ")
}
