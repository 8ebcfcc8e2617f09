package deploy_test

import (
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"

	promql "github.com/prometheus/prometheus/promql/parser"
)

type dashboard struct {
	UID           string
	Title         string
	Tags          []string
	SchemaVersion int
	Templating    struct {
		List []struct{ Name, Type, Definition string }
	}
	Annotations struct {
		List []struct {
			Name, Expr string
			Datasource datasource
		}
	}
	Panels []struct {
		ID                       int
		Type, Title, Description string
		Datasource               *datasource
		GridPos                  struct{ H, W, X, Y int }
		FieldConfig              struct {
			Defaults struct{ Unit string }
		}
		Targets []struct {
			RefID              string
			Datasource         datasource
			Expr, LegendFormat string
		}
	}
}

type datasource struct{ Type, UID string }

func theDashboard(t *testing.T) (d dashboard) {
	t.Helper()
	body, err := os.ReadFile(deployed("grafana", "lagoon.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(body, &d); err != nil {
		t.Fatal(err)
	}
	return d
}

// plain is an expression as Grafana sends it.
func plain(expr string) string {
	return strings.NewReplacer("$__rate_interval", "5m", "$instance", ".*").Replace(expr)
}

func panelQueries(t *testing.T) (out []query) {
	t.Helper()
	d := theDashboard(t)
	for _, a := range d.Annotations.List {
		out = append(out, query{where: "annotation " + a.Name, text: plain(a.Expr)})
	}
	for _, p := range d.Panels {
		for _, q := range p.Targets {
			out = append(out, query{where: "panel " + p.Title, text: plain(q.Expr)})
		}
	}
	return out
}

var legendLabel = regexp.MustCompile(`\{\{\s*(\w+)\s*\}\}`)

// TestDashboard: Grafana can import it and put it side by side with others; each panel has a place of its own, a unit and a description,
// asks the data source and the broker that were chosen, and its legends name labels that are left in the result.
func TestDashboard(t *testing.T) {
	d := theDashboard(t)
	if d.UID == "" || d.Title == "" || len(d.Tags) == 0 || d.SchemaVersion < 36 {
		t.Errorf("uid %q, title %q, tags %q, schema %d", d.UID, d.Title, d.Tags, d.SchemaVersion)
	}
	if l := d.Templating.List; len(l) != 2 || l[0].Name != "datasource" || l[0].Type != "datasource" || l[1].Name != "instance" || l[1].Definition != "label_values(lagoon_build_info, instance)" {
		t.Errorf("variables: %+v", l)
	}
	chosen := datasource{"prometheus", "${datasource}"}
	ids, cells := map[int]bool{}, map[[2]int]string{}
	for _, p := range d.Panels {
		if ids[p.ID] {
			t.Errorf("%s: id %d is there twice", p.Title, p.ID)
		}
		ids[p.ID] = true
		g := p.GridPos
		if g.W < 1 || g.H < 1 || g.X+g.W > 24 {
			t.Errorf("%s: %+v is no place", p.Title, g)
		}
		for x := g.X; x < g.X+g.W; x++ {
			for y := g.Y; y < g.Y+g.H; y++ {
				if cells[[2]int{x, y}] != "" {
					t.Errorf("%s covers %s", p.Title, cells[[2]int{x, y}])
				}
				cells[[2]int{x, y}] = p.Title
			}
		}
		if p.Type == "row" {
			continue
		}
		if p.Description == "" || p.FieldConfig.Defaults.Unit == "" || len(p.Targets) == 0 || p.Datasource == nil || *p.Datasource != chosen {
			t.Errorf("%s: description %q, unit %q, data source %v, %d queries", p.Title, p.Description, p.FieldConfig.Defaults.Unit, p.Datasource, len(p.Targets))
		}
		refs := map[string]bool{}
		for _, q := range p.Targets {
			if refs[q.RefID] || q.Datasource != chosen || !strings.Contains(q.Expr, `instance=~"$instance"`) || q.LegendFormat == "" {
				t.Errorf("%s: query %s: data source %v, %s, legend %q", p.Title, q.RefID, q.Datasource, q.Expr, q.LegendFormat)
			}
			refs[q.RefID] = true
			left := grouping(t, plain(q.Expr))
			for _, m := range legendLabel.FindAllStringSubmatch(q.LegendFormat, -1) {
				if left != nil && !left[m[1]] {
					t.Errorf("%s: %s leaves no label %s", p.Title, q.Expr, m[1])
				}
			}
		}
	}
}

// grouping is what the aggregations of an expression leave of the labels; nil when there is none.
func grouping(t *testing.T, text string) (left map[string]bool) {
	t.Helper()
	expr, err := promql.ParseExpr(text)
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	promql.Inspect(expr, func(node promql.Node, _ []promql.Node) error {
		a, ok := node.(*promql.AggregateExpr)
		if !ok || a.Op == promql.TOPK {
			return nil
		}
		if left == nil {
			left = map[string]bool{}
		}
		for _, l := range a.Grouping {
			left[l] = true
		}
		return nil
	})
	return left
}
