package api

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/google/go-cmp/cmp"

	"github.com/weirproxy/weir/control"
	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/internal/plan"
	"github.com/weirproxy/weir/limit"
	adminv1 "github.com/weirproxy/weir/proto/weir/admin/v1"
)

// A field that does not exist is an error: a misspelt scope must not reset everything.
func TestMisspeltFields(t *testing.T) {
	for body, ok := range map[string]bool{
		`{"name":"month","scope":{"team":"x"}}`:             true,
		`{"name":"month","all":true,"scopes":{"team":"x"}}`: false,
		``: false,
	} {
		if err := (strictJSON{}).Unmarshal([]byte(body), &adminv1.ResetBudgetRequest{}); (err == nil) != ok {
			t.Errorf("%s: %v", body, err)
		}
	}
}

// book is a real ledger with two limits.
type book struct {
	*limit.Ledger
	limits []*plan.Limit
	broken error
}

func newBook() *book {
	return &book{Ledger: limit.New(time.Now), limits: []*plan.Limit{
		{Name: "month", Unit: plan.UnitUSD, Amount: 5_000_000_000, Period: plan.Month, Zone: time.UTC, PerTeam: true, Breaker: true},
		{Name: "requests", Unit: plan.UnitRequests, Amount: 10, Window: time.Hour, PerKey: true},
	}}
}

func (b *book) Limit(name string) *plan.Limit {
	for _, l := range b.limits {
		if l.Name == name {
			return l
		}
	}
	return nil
}

func (b *book) All(context.Context) ([]limit.State, error) { return b.Ledger.All(b.limits), b.broken }

func (b *book) Reset(_ context.Context, l *plan.Limit, match func(limit.Scope) bool) ([]limit.State, error) {
	return b.Ledger.Reset(l, match), b.broken
}

func (b *book) spend(team string, cost ai.NanoUSD) {
	b.Reserve(b.limits, &limit.Request{ID: "x", Principal: ai.Principal{Team: team, Key: team + "-key"}, Targets: []limit.Target{{Pool: "p"}}})
	b.Settle("x", []limit.Used{{Pool: "p", Cost: cost}})
}

func TestBudgets(t *testing.T) {
	w := newWorld(t)
	w.budgets.spend("core", 2_000_000_001)
	w.budgets.spend("data", 7_000_000_000)
	actor := control.Actor{Name: "cfo", Roles: []string{Finance}}
	_, _, api := w.as(t, &actor)
	list := func(m *adminv1.ListBudgetsRequest) (all []string, next string) {
		t.Helper()
		resp, err := api.ListBudgets(t.Context(), connect.NewRequest(m))
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range resp.Msg.Budgets {
			all = append(all, fmt.Sprint(b.Name, b.Scope, " ", b.Used, " of ", b.Amount, " ", b.Unit, " in a ", b.Span, ", ", b.Left, " left, open ", b.Open))
		}
		return all, resp.Msg.NextPageToken
	}
	want := []string{
		"monthmap[team:core] 2000000001 of 5000000000 usd in a month, 2999999999 left, open false",
		"monthmap[team:data] 7000000000 of 5000000000 usd in a month, 0 left, open true",
		"requestsmap[key:core-key] 1 of 10 requests in a 1h0m0s, 9 left, open false",
		"requestsmap[key:data-key] 1 of 10 requests in a 1h0m0s, 9 left, open false",
	}
	if got, next := list(&adminv1.ListBudgetsRequest{}); !cmp.Equal(want, got) || next != "" {
		t.Errorf("%s, next %q", cmp.Diff(want, got), next)
	}
	first, next := list(&adminv1.ListBudgetsRequest{PageSize: 3})
	rest, _ := list(&adminv1.ListBudgetsRequest{PageSize: 3, PageToken: next})
	if got := append(first, rest...); !cmp.Equal(want, got) {
		t.Errorf("in pages: %s", cmp.Diff(want, got))
	}
	if got, _ := list(&adminv1.ListBudgetsRequest{Name: "month", Scope: map[string]string{"team": "data"}}); len(got) != 1 || got[0] != want[1] {
		t.Errorf("%v", got)
	}

	resp, err := api.ResetBudget(t.Context(), connect.NewRequest(&adminv1.ResetBudgetRequest{Name: "month", Scope: map[string]string{"team": "data"}, Note: "agreed"}))
	if err != nil || len(resp.Msg.Budgets) != 1 || resp.Msg.Budgets[0].Used != 7_000_000_000 || !resp.Msg.Budgets[0].Open {
		t.Fatalf("%v, %v", resp, err)
	}
	if got, _ := list(&adminv1.ListBudgetsRequest{Name: "month"}); len(got) != 1 || got[0] != want[0] {
		t.Errorf("after the reset: %v", got)
	}
	records, err := w.store.Audit(t.Context(), control.AuditFilter{Action: "budget.reset"}, 10)
	if err != nil || len(records) != 1 {
		t.Fatalf("%+v, %v", records, err)
	}
	if r := records[0]; r.Actor != "cfo" || r.Object != "budget/month" || r.Outcome != control.Done || r.Detail != "agreed" || r.Before != "team=data: $7.00 used, breaker open" {
		t.Errorf("%+v", r)
	}
}

func TestWrongBudgetCalls(t *testing.T) {
	w := newWorld(t)
	actor := control.Actor{Name: "cfo", Roles: []string{Finance}}
	_, _, api := w.as(t, &actor)
	for _, tc := range []struct {
		m    *adminv1.ResetBudgetRequest
		want connect.Code
	}{
		{&adminv1.ResetBudgetRequest{}, connect.CodeNotFound},
		{&adminv1.ResetBudgetRequest{Name: "mont"}, connect.CodeNotFound},
		{&adminv1.ResetBudgetRequest{Name: "month", Scope: map[string]string{"tram": "x"}}, connect.CodeInvalidArgument},
		{&adminv1.ResetBudgetRequest{Name: "month"}, connect.CodeInvalidArgument},
		{&adminv1.ResetBudgetRequest{Name: "month", All: true, Scope: map[string]string{"team": "x"}}, connect.CodeInvalidArgument},
		{&adminv1.ResetBudgetRequest{Name: "month", Scope: map[string]string{"model": "x"}}, connect.CodeInvalidArgument},
		{&adminv1.ResetBudgetRequest{Name: "month", All: true, Note: strings.Repeat("x", 257)}, connect.CodeInvalidArgument},
	} {
		if _, err := api.ResetBudget(t.Context(), connect.NewRequest(tc.m)); connect.CodeOf(err) != tc.want {
			t.Errorf("%v: %v", tc.m, err)
		}
	}
	for _, token := range []string{"x", "-1", "0"} {
		if _, err := api.ListBudgets(t.Context(), connect.NewRequest(&adminv1.ListBudgetsRequest{PageToken: token})); connect.CodeOf(err) != connect.CodeInvalidArgument {
			t.Errorf("page %q: %v", token, err)
		}
	}
	w.budgets.broken = errors.New("the disk is full")
	if _, err := api.ResetBudget(t.Context(), connect.NewRequest(&adminv1.ResetBudgetRequest{Name: "month", All: true})); connect.CodeOf(err) != connect.CodeUnavailable || strings.Contains(err.Error(), "disk") {
		t.Errorf("%v", err)
	}
	failed, err := w.store.Audit(t.Context(), control.AuditFilter{Outcome: control.Failed}, 10)
	if err != nil || len(failed) != 8 {
		t.Errorf("%d failed calls in the audit: %v", len(failed), err)
	}
}
