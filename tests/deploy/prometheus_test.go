package deploy_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/common/model"
	promql "github.com/prometheus/prometheus/promql/parser"
	"go.yaml.in/yaml/v3"

	"lagoon/tests/internal/lagoontest"
)

// alert is one alerting rule.
type alert struct {
	Name        string            `yaml:"alert"`
	Expr        string            `yaml:"expr"`
	For         string            `yaml:"for"`
	Labels      map[string]string `yaml:"labels"`
	Annotations map[string]string `yaml:"annotations"`
}

// parseYAML reads a file strictly: a misspelt key is a fault, for Prometheus as well.
func parseYAML(t *testing.T, path string, out any) {
	t.Helper()
	body, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	d := yaml.NewDecoder(bytes.NewReader(body))
	d.KnownFields(true)
	if err := d.Decode(out); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

func deployed(elem ...string) string {
	return filepath.Join(append([]string{lagoontest.Root(), "deploy"}, elem...)...)
}

func alerts(t *testing.T) (all []alert) {
	t.Helper()
	var file struct {
		Groups []struct {
			Name  string  `yaml:"name"`
			Rules []alert `yaml:"rules"`
		} `yaml:"groups"`
	}
	parseYAML(t, deployed("prometheus", "lagoon-alerts.yml"), &file)
	for _, g := range file.Groups {
		all = append(all, g.Rules...)
	}
	if len(all) == 0 {
		t.Fatal("no rules")
	}
	return all
}

func ruleQueries(t *testing.T) (out []query) {
	t.Helper()
	for _, a := range alerts(t) {
		out = append(out, query{where: a.Name, text: a.Expr})
	}
	return out
}

var command = regexp.MustCompile("`lagoon ([^`]*)`")

// TestAlertsHelp: each says what it means and names something to look with, and the commands that it names exist with these flags.
func TestAlertsHelp(t *testing.T) {
	binary := lagoontest.Build(t)
	seen := map[string]bool{}
	for _, a := range alerts(t) {
		if seen[a.Name] {
			t.Errorf("%s is there twice", a.Name)
		}
		seen[a.Name] = true
		if s := a.Labels["severity"]; s != "critical" && s != "warning" {
			t.Errorf("%s: severity %q", a.Name, s)
		}
		if a.For == "" || a.Annotations["summary"] == "" || !strings.Contains(a.Annotations["summary"], "$labels.instance") {
			t.Errorf("%s: for %q, summary %q", a.Name, a.For, a.Annotations["summary"])
		}
		named := command.FindAllStringSubmatch(a.Annotations["description"], -1)
		if len(named) == 0 {
			t.Errorf("%s names no command to look with: %s", a.Name, a.Annotations["description"])
		}
		for _, m := range named {
			if out, err := exec.Command(binary, append(strings.Fields(m[1]), "--help")...).CombinedOutput(); err != nil || !strings.Contains(string(out), "Usage:") {
				t.Errorf("%s: lagoon %s: %v\n%s", a.Name, m[1], err, out)
			}
		}
	}
}

// TestEveryAlertIsTried: testdata/alerts.yml has a healthy broker with all that alerts ask for, on which none fires, and for each alert one on
// which it does.
func TestEveryAlertIsTried(t *testing.T) {
	var file struct {
		RuleFiles          []string `yaml:"rule_files"`
		EvaluationInterval string   `yaml:"evaluation_interval"`
		Tests              []struct {
			Name        string `yaml:"name"`
			Interval    string `yaml:"interval"`
			InputSeries []struct {
				Series string `yaml:"series"`
				Values string `yaml:"values"`
			} `yaml:"input_series"`
			PromqlExprTest []struct {
				EvalTime   string `yaml:"eval_time"`
				Expr       string `yaml:"expr"`
				ExpSamples []struct {
					Labels string  `yaml:"labels"`
					Value  float64 `yaml:"value"`
				} `yaml:"exp_samples"`
			} `yaml:"promql_expr_test"`
		} `yaml:"tests"`
	}
	parseYAML(t, filepath.Join("testdata", "alerts.yml"), &file)
	if want := []string{"../../../deploy/prometheus/lagoon-alerts.yml"}; !slices.Equal(file.RuleFiles, want) {
		t.Errorf("it tests %q, want %q", file.RuleFiles, want)
	}
	fires, healthy := map[string]bool{}, map[string]bool{}
	for i, test := range file.Tests {
		for _, in := range test.InputSeries {
			if metric, err := promql.ParseMetric(in.Series); err != nil {
				t.Errorf("%s: %s: %v", test.Name, in.Series, err)
			} else if i == 0 {
				healthy[metric.Get(model.MetricNameLabel)] = true
			}
		}
		for _, at := range test.PromqlExprTest {
			for _, sample := range at.ExpSamples {
				metric, err := promql.ParseMetric(sample.Labels)
				if err != nil || i == 0 {
					t.Errorf("%s: %s: %v", test.Name, sample.Labels, err)
				}
				fires[metric.Get("alertname")] = true
			}
		}
	}
	for _, a := range alerts(t) {
		if !fires[a.Name] {
			t.Errorf("%s: no broker on which it fires", a.Name)
		}
		expr, err := promql.ParseExpr(a.Expr)
		if err != nil {
			t.Fatal(err)
		}
		promql.Inspect(expr, func(node promql.Node, _ []promql.Node) error {
			// A healthy broker has no race.
			if s, ok := node.(*promql.VectorSelector); ok && !healthy[s.Name] && s.Name != "lagoon_reader_retention_race_seconds" {
				t.Errorf("%s: the healthy broker has no %s", a.Name, s.Name)
			}
			return nil
		})
	}
}
