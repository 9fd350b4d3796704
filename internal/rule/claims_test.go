package rule

import (
	"errors"
	"strings"
	"testing"

	"cel.dev/cel-go/cel"
	"github.com/google/go-cmp/cmp"
)

var someClaims = map[string]any{
	"sub": "alice", "level": int64(3), "share": 0.5, "admin": true, "none": nil, "scope": "openid llm",
	"groups": []any{"chat", "embed", "staff"}, "mixed": []any{"chat", int64(1)}, "realm_access": map[string]any{"roles": []any{"dev"}},
}

func TestClaims(t *testing.T) {
	for expression, tc := range map[string]struct {
		want *cel.Type
		out  any
		err  error
	}{
		`claims.sub`:                {ClaimString, "alice", nil},
		`claims["sub"]`:             {ClaimString, "alice", nil},
		`"research"`:                {ClaimString, "research", nil},
		`claims.groups`:             {ClaimStrings, []string{"chat", "embed", "staff"}, nil},
		`claims.realm_access.roles`: {ClaimStrings, []string{"dev"}, nil},
		`["dev", claims.sub]`:       {ClaimStrings, []string{"dev", "alice"}, nil},
		`claims.groups.filter(g, g in ["chat", "other"])`: {ClaimStrings, []string{"chat"}, nil},
		`claims.groups.map(g, "llm-" + g)`:                {ClaimStrings, []string{"llm-chat", "llm-embed", "llm-staff"}, nil},
		`"llm" in claims.scope.split(" ")`:                {ClaimBool, true, nil},
		`claims.level >= 3 && claims.share < 1.0`:         {ClaimBool, true, nil},
		`claims.level + 1 == 4`:                           {ClaimBool, true, nil},
		`has(claims.nothing)`:                             {ClaimBool, false, nil},
		`claims.nothing == "x"`:                           {ClaimBool, false, nil}, // what is missing makes it false
		`claims.nothing`:                                  {ClaimString, "", ErrNoClaim},
		`claims.realm_access.no`:                          {ClaimStrings, []string(nil), ErrNoClaim},
		`claims.level`:                                    {ClaimString, "", ErrClaimType},
		`claims.none`:                                     {ClaimString, "", ErrClaimType},
		`claims.sub + claims.level`:                       {ClaimString, "", ErrNoValue},
		`claims.groups[0]`:                                {ClaimString, "chat", nil},
		`claims.mixed`:                                    {ClaimStrings, []string(nil), ErrClaimType},
		`claims.realm_access`:                             {ClaimStrings, []string(nil), ErrClaimType},
		`claims.admin`:                                    {ClaimBool, true, nil},
		`claims.sub.level == 3`:                           {ClaimBool, false, nil},
		`claims.sub && claims.level == 3`:                 {ClaimBool, false, ErrNoValue}, // a fault, and no claim that is missing
		`claims.sub` + " ":                                {ClaimString, "alice", nil},
	} {
		claim, faults := CompileClaim(expression, tc.want)
		if faults != nil {
			t.Errorf("%s: %v", expression, faults[0])
			continue
		}
		var got any
		var err error
		switch tc.want {
		case ClaimBool:
			got, err = claim.Holds(someClaims)
		case ClaimString:
			got, err = claim.Text(someClaims)
		default:
			got, err = claim.Texts(someClaims)
		}
		if diff := cmp.Diff(tc.out, got); diff != "" || !errors.Is(err, tc.err) {
			t.Errorf("%s: %v, %s", expression, err, diff)
		}
	}
}

func TestClaimFaults(t *testing.T) {
	for expression, want := range map[string]string{
		`claims.sub ==`:           "Syntax error",
		`team`:                    "undeclared reference to 'team'",
		`1`:                       "type int; want string",
		`["a"]`:                   "type list(string); want string",
		`claims.sub == "x"`:       "type bool; want string",
		`["a"][1]`:                "reads no claim and has no value",
		strings.Repeat("x", 9000): "longer than",
	} {
		if _, faults := CompileClaim(expression, ClaimString); len(faults) == 0 || !strings.Contains(faults[0].Error(), want) {
			t.Errorf("%.40s: %v, want %q", expression, faults, want)
		}
	}
	if _, faults := CompileClaim(`[1]`, ClaimStrings); len(faults) == 0 {
		t.Error("a list of numbers is a list of strings")
	}
}

func TestClaimConstant(t *testing.T) {
	for expression, want := range map[string]any{`"a" + "b"`: "ab", `claims.sub`: nil, `true ? "a" : claims.sub`: nil} {
		claim, faults := CompileClaim(expression, ClaimString)
		if faults != nil || claim.Constant() != want {
			t.Errorf("%s: %v, %v", expression, claim.Constant(), faults)
		}
	}
	if claim, _ := CompileClaim(`["a", "b"]`, ClaimStrings); cmp.Diff([]string{"a", "b"}, claim.Constant()) != "" {
		t.Errorf("%v", claim.Constant())
	}
}

// No expression spends more than the bound, and no error tells a claim's value.
func TestClaimCost(t *testing.T) {
	claims := map[string]any{"secret": "hush", "list": make([]any, 4000)}
	for i := range claims["list"].([]any) {
		claims["list"].([]any)[i] = "hush"
	}
	claim, faults := CompileClaim(`claims.list.filter(a, claims.list.exists(b, b == a + "x"))`, ClaimStrings)
	if faults == nil {
		if _, err := claim.Texts(claims); !errors.Is(err, ErrCost) {
			t.Errorf("%v", err)
		}
	}
	claim, _ = CompileClaim(`claims.secret + claims.list`, ClaimString)
	if _, err := claim.Text(claims); err == nil || strings.Contains(err.Error(), "hush") {
		t.Errorf("%v", err)
	}
	claim, _ = CompileClaim(`claims.list`, ClaimStrings)
	if _, err := claim.Texts(claims); !errors.Is(err, ErrClaimType) {
		t.Errorf("a list of 4000: %v", err)
	}
}

func BenchmarkClaims(b *testing.B) {
	for _, expression := range []string{`claims.sub`, `claims.groups.filter(g, g in ["chat", "other"])`} {
		claim, _ := CompileClaim(expression, ClaimStrings)
		if claim == nil {
			claim, _ = CompileClaim(expression, ClaimString)
		}
		b.Run(expression, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_, _, _ = claim.program.Eval(map[string]any{"claims": someClaims})
			}
		})
	}
}
