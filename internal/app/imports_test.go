package app

import (
	"os/exec"
	"strings"
	"testing"
)

const module = "github.com/weirproxy/weir/"

// The rooms of the project, and what may not be reached from each, directly or
// through another: imports point one way.
var walls = []struct {
	from  string
	never []string
}{
	{"internal/ai", []string{module}},
	{"dialect/...", []string{
		module + "internal/plan", module + "extproc", module + "xds", module + "usage", module + "limit",
		"google.golang.org/", "github.com/envoyproxy/",
	}},
	{"internal/plan", []string{module + "internal/rule", module + "internal/config", module + "extproc", module + "xds", module + "usage", "google.golang.org/"}},
	{"tokens/...", []string{
		module + "internal/plan", module + "internal/rule", module + "internal/config", module + "extproc", module + "xds", module + "usage",
		"google.golang.org/", "github.com/envoyproxy/",
	}},
	{"control", []string{module + "limit", module + "control/"}},
	{"control/...", []string{module + "extproc", module + "xds", module + "usage", module + "internal/app", module + "internal/config", "github.com/envoyproxy/"}},
	{"limit/...", []string{module + "extproc", module + "xds", module + "usage", "github.com/envoyproxy/"}},
	{"internal/istio", []string{module + "internal/config", module + "extproc", module + "xds", module + "usage", "google.golang.org/", "istio.io/", "k8s.io/"}},
	{"internal/live", []string{module + "extproc", module + "xds", module + "usage", module + "internal/app", module + "internal/config"}},
	{"internal/rollout", []string{module + "extproc", module + "xds", module + "internal/app", module + "internal/config"}},
	{"internal/rule", []string{module + "extproc", module + "xds", module + "usage", "github.com/envoyproxy/"}},
	{"extproc/...", []string{module + "xds", module + "envoy", module + "usage", module + "internal/app", module + "internal/config"}},
	{"extproc/stage/...", []string{"github.com/envoyproxy/"}},
	{"extproc/pipeline", []string{"github.com/envoyproxy/"}},
	{"xds/...", []string{module + "extproc", module + "usage", module + "limit", module + "internal/app"}},
	{"envoy/...", []string{module + "extproc", module + "usage", module + "limit", module + "internal/app"}},
	{"usage/...", []string{module + "extproc", module + "xds", module + "internal/app"}},
	{"wasm/adapter/...", []string{module + "internal/plan", module + "extproc", module + "xds", module + "usage", "google.golang.org/"}},
	{"internal/app", []string{module + "internal/cli"}},
}

func TestImportsPointOneWay(t *testing.T) {
	for _, w := range walls {
		deps := goList(t, "-deps", module+w.from)
		own := map[string]bool{}
		for _, p := range goList(t, module+w.from) {
			own[p] = true
		}
		if len(own) == 0 {
			t.Errorf("%s: no such packages: the table is out of date", w.from)
		}
		for _, dep := range deps {
			for _, never := range w.never {
				if strings.HasPrefix(dep, never) && !own[dep] {
					t.Errorf("%s reaches %s", w.from, dep)
				}
			}
		}
	}
}

// Stages never import stages.
func TestStagesAreApart(t *testing.T) {
	prefix := module + "extproc/stage/"
	stages := goList(t, prefix+"...")
	if len(stages) == 0 {
		t.Fatal("no stages found")
	}
	for _, stage := range stages {
		for _, dep := range goList(t, "-deps", stage) {
			if strings.HasPrefix(dep, prefix) && dep != stage {
				t.Errorf("%s imports %s", stage, dep)
			}
		}
	}
}

func goList(t *testing.T, args ...string) []string {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list"}, args...)...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list %s: %v\n%s", strings.Join(args, " "), err, stderr.String())
	}
	return strings.Fields(string(out))
}
