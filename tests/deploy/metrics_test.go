package deploy_test

import (
	"context"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	promql "github.com/prometheus/prometheus/promql/parser"
	"github.com/twmb/franz-go/pkg/kgo"

	"lagoon/tests/internal/lagoontest"
)

// exported is what a broker has exported so far: of each sample name the label sets that were seen.
type exported struct {
	series map[string][]map[string]string
	// declared are the labels of families that are described in the sources, for those that a broker has only in trouble or after a while.
	declared map[string][]string
}

// targetLabels are those that Prometheus gives to what it scrapes, or that up alone has.
var targetLabels = []string{"job", "instance"}

// scrape adds what both endpoints show now.
func (e *exported) scrape(t *testing.T, b *lagoontest.Broker) {
	t.Helper()
	for _, endpoint := range []string{"/metrics", "/metrics/detailed"} {
		p := expfmt.NewTextParser(model.UTF8Validation)
		families, err := p.TextToMetricFamilies(strings.NewReader(b.Get(endpoint, nil)))
		if err != nil {
			t.Fatalf("%s: %v", endpoint, err)
		}
		for name, family := range families {
			for _, m := range family.GetMetric() {
				set := map[string]string{}
				for _, l := range m.GetLabel() {
					set[l.GetName()] = l.GetValue()
				}
				if h := m.GetHistogram(); h != nil {
					e.add(name+"_count", set)
					e.add(name+"_sum", set)
					set = maps.Clone(set)
					set["le"] = "+Inf"
					e.add(name+"_bucket", set)
					continue
				}
				e.add(name, set)
			}
		}
	}
}

func (e *exported) add(name string, set map[string]string) {
	if !slices.ContainsFunc(e.series[name], func(have map[string]string) bool { return maps.Equal(have, set) }) {
		e.series[name] = append(e.series[name], set)
	}
}

// labelsOf are the labels of a family, with those of targets; nil when it is not known.
func (e *exported) labelsOf(name string) []string {
	if name == "up" {
		return targetLabels
	}
	if sets := e.series[name]; len(sets) > 0 {
		return slices.Concat(targetLabels, slices.Collect(maps.Keys(sets[0])))
	}
	if names, ok := e.declared[name]; ok {
		return slices.Concat(targetLabels, names)
	}
	return nil
}

// lacks says what of an expression the broker does not have, "" if it has all.
func (e *exported) lacks(expr promql.Expr) string {
	var all []string // labels of what it selects
	var faults []string
	promql.Inspect(expr, func(node promql.Node, _ []promql.Node) error {
		s, ok := node.(*promql.VectorSelector)
		if !ok {
			return nil
		}
		names := e.labelsOf(s.Name)
		all = append(all, names...)
		if names == nil {
			faults = append(faults, "no metric "+s.Name)
			return nil
		}
		for _, m := range s.LabelMatchers {
			if m.Name != model.MetricNameLabel && !slices.Contains(names, m.Name) {
				faults = append(faults, fmt.Sprintf("%s has no label %s", s.Name, m.Name))
			}
		}
		if sets := e.series[s.Name]; len(sets) > 0 && !slices.ContainsFunc(sets, func(set map[string]string) bool { return matches(s.LabelMatchers, set) }) {
			faults = append(faults, fmt.Sprintf("no series %s", s))
		}
		return nil
	})
	named := func(what string, list []string) {
		for _, l := range list {
			if l != "le" && !slices.Contains(all, l) {
				faults = append(faults, fmt.Sprintf("%s (%s): no label of what it selects", what, l))
			}
		}
	}
	promql.Inspect(expr, func(node promql.Node, _ []promql.Node) error {
		switch n := node.(type) {
		case *promql.AggregateExpr:
			named("by or without", n.Grouping)
		case *promql.BinaryExpr:
			if m := n.VectorMatching; m != nil {
				named("on or ignoring", m.MatchingLabels)
			}
		}
		return nil
	})
	return strings.Join(faults, "; ")
}

// onlyDeclared are the families that are asked for and were not seen.
func (e *exported) onlyDeclared(queries []query) (names []string) {
	for _, q := range queries {
		promql.Inspect(q.expr, func(node promql.Node, _ []promql.Node) error {
			if s, ok := node.(*promql.VectorSelector); ok && len(e.series[s.Name]) == 0 && !slices.Contains(names, s.Name) {
				names = append(names, s.Name)
			}
			return nil
		})
	}
	return names
}

// matches tells whether a series has what is asked for, targets aside.
func matches(matchers []*labels.Matcher, set map[string]string) bool {
	for _, m := range matchers {
		if m.Name != model.MetricNameLabel && !slices.Contains(targetLabels, m.Name) && !m.Matches(set[m.Name]) {
			return false
		}
	}
	return true
}

// declared finds the families that are described by prometheus.NewDesc, with their labels.
func declared(t *testing.T) map[string][]string {
	t.Helper()
	fset := token.NewFileSet()
	lists := map[string][]string{} // package folder and name of a variable
	type call struct {
		dir string
		ast *ast.CallExpr
	}
	var calls []call
	err := filepath.WalkDir(lagoontest.Root(), func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "tests" || d.Name() == "testdata" || strings.HasPrefix(d.Name(), ".")):
			return filepath.SkipDir
		case d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		tree, err := parser.ParseFile(fset, path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		ast.Inspect(tree, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.ValueSpec:
				for i, name := range n.Names {
					if i < len(n.Values) {
						if list, ok := texts(n.Values[i]); ok {
							lists[filepath.Dir(path)+"/"+name.Name] = list
						}
					}
				}
			case *ast.CallExpr:
				if f, ok := n.Fun.(*ast.SelectorExpr); ok && f.Sel.Name == "NewDesc" && len(n.Args) == 4 {
					calls = append(calls, call{filepath.Dir(path), n})
				}
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	found := map[string][]string{}
	for _, c := range calls {
		name, ok := text(c.ast.Args[0])
		if !ok {
			continue // of a family whose name is put together: it is in every scrape
		}
		list, _ := texts(c.ast.Args[2])
		if v, ok := c.ast.Args[2].(*ast.Ident); ok {
			list = lists[c.dir+"/"+v.Name]
		}
		found[name] = list
	}
	return found
}

func text(e ast.Expr) (string, bool) {
	lit, ok := e.(*ast.BasicLit)
	if !ok || lit.Kind != token.STRING {
		return "", false
	}
	s, err := strconv.Unquote(lit.Value)
	return s, err == nil
}

func texts(e ast.Expr) (list []string, ok bool) {
	c, ok := e.(*ast.CompositeLit)
	if !ok {
		return nil, false
	}
	for _, elt := range c.Elts {
		s, ok := text(elt)
		if !ok {
			return nil, false
		}
		list = append(list, s)
	}
	return list, true
}

const records = 300 // of 100 KiB

// busy starts a broker and has it do everything that leaves a trace in metrics: live records and a group that reads them, old ones
// that a reader with a cap on it replays, segments that move, requests that fail.
func busy(t *testing.T) *lagoontest.Broker {
	t.Helper()
	b := lagoontest.Start(t, lagoontest.Options{Tiers: []lagoontest.Tier{{Name: "ssd", Keep: "1s"}, {Name: "hdd"}}, Config: `
[storage]
segment_bytes = "4MiB"
[readers]
lagging_when = { min_bytes = "4MiB", min_age = "1ms" }
[throttle]
tier.hdd = "1GiB/s"
tier.ssd = "1GiB/s"
[cache]
hot_window_memory = "0%" # what is evicted stays so
[tiering]
interval = "1s"
`})
	fill(t, b, "orders", records)
	run(t, b, "throttle", "set", "loader", "16MiB/s", "--kind", "client")
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	replay(ctx, t, b)
	read(ctx, t, b, kgo.ConsumeTopics("orders"), kgo.ConsumerGroup("warehouse"))
	read(ctx, t, b, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{"orders": {0: kgo.NewOffset().AtEnd()}}))
	read(ctx, t, b, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{"orders": {0: kgo.NewOffset().At(1 << 40)}}), kgo.ConsumeResetOffset(kgo.NoResetOffset()))
	live := lagoontest.Client(t, b, kgo.DefaultProduceTopic("orders"))
	var produce func(*kgo.Record, error)
	produce = func(*kgo.Record, error) { // one after the other, so that the real-time path has latencies
		if ctx.Err() == nil {
			live.Produce(ctx, &kgo.Record{Value: make([]byte, 100)}, produce)
		}
	}
	produce(nil, nil)
	return b
}

// fill writes n records of 100 KiB.
func fill(t *testing.T, b *lagoontest.Broker, topic string, n int) {
	t.Helper()
	cl := lagoontest.Client(t, b, kgo.AllowAutoTopicCreation(), kgo.DefaultProduceTopic(topic), kgo.ProducerBatchCompression(kgo.NoCompression()))
	for range n {
		cl.Produce(t.Context(), &kgo.Record{Value: make([]byte, 100<<10)}, func(_ *kgo.Record, err error) {
			if err != nil {
				t.Error(err)
			}
		})
	}
	if err := cl.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// replay reads all of the topic again and again until ctx ends.
func replay(ctx context.Context, t *testing.T, b *lagoontest.Broker) {
	t.Helper()
	start := map[string]map[int32]kgo.Offset{"orders": {0: kgo.NewOffset().At(0)}}
	cl := lagoontest.Client(t, b, kgo.ClientID("loader"), kgo.ConsumePartitions(start))
	go func() {
		for ctx.Err() == nil {
			for n := 0; n < records && ctx.Err() == nil; {
				n += cl.PollFetches(ctx).NumRecords()
			}
			cl.RemoveConsumePartitions(map[string][]int32{"orders": {0}})
			cl.AddConsumePartitions(start)
		}
	}()
}

// read consumes until ctx ends, whatever comes.
func read(ctx context.Context, t *testing.T, b *lagoontest.Broker, opts ...kgo.Opt) {
	t.Helper()
	cl := lagoontest.Client(t, b, append(opts, kgo.FetchMaxWait(100*time.Millisecond))...)
	go func() {
		for ctx.Err() == nil {
			cl.PollFetches(ctx)
		}
	}()
}

// run is a call of the CLI that must succeed.
func run(t *testing.T, b *lagoontest.Broker, args ...string) string {
	t.Helper()
	out, err := b.CLI(append([]string{"--admin", b.Admin()}, args...)...)
	if err != nil {
		t.Fatalf("lagoon %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// query is an expression of a file in deploy.
type query struct {
	where, text string
	expr        promql.Expr
}

// TestWhatIsAskedForIsExported: every metric, label and label value in rules and dashboard.
func TestWhatIsAskedForIsExported(t *testing.T) {
	queries := append(ruleQueries(t), panelQueries(t)...)
	for i := range queries {
		expr, err := promql.ParseExpr(queries[i].text)
		if err != nil {
			t.Fatalf("%s: %v\n%s", queries[i].where, err, queries[i].text)
		}
		queries[i].expr = expr
	}
	b := busy(t)
	e := exported{series: map[string][]map[string]string{}, declared: declared(t)}
	faults := map[string]string{}
	lagoontest.Poll(time.Minute, func() bool {
		_, _ = b.CLI("--admin", b.Admin(), "cache", "evict", "orders/0", "--yes") // a segment on its way to another tier is for the next time
		e.scrape(t, b)
		clear(faults)
		for _, q := range queries {
			if lack := e.lacks(q.expr); lack != "" {
				faults[q.where+": "+q.text] = lack
			}
		}
		return len(faults) == 0
	})
	for where, lack := range faults {
		t.Errorf("%s\n\t%s", where, lack)
	}
	t.Logf("described in the sources, but not exported by this broker: %q", e.onlyDeclared(queries))
	templates(t, &e, queries)
}

var templateLabel = regexp.MustCompile(`\$labels\.(\w+)`)

// templates checks the labels that annotations of alerts name.
func templates(t *testing.T, e *exported, queries []query) {
	t.Helper()
	for _, a := range alerts(t) {
		var all []string
		for _, q := range queries {
			if q.where == a.Name {
				promql.Inspect(q.expr, func(node promql.Node, _ []promql.Node) error {
					if s, ok := node.(*promql.VectorSelector); ok {
						all = append(all, e.labelsOf(s.Name)...)
					}
					return nil
				})
			}
		}
		for _, text := range a.Annotations {
			for _, m := range templateLabel.FindAllStringSubmatch(text, -1) {
				if !slices.Contains(all, m[1]) {
					t.Errorf("%s: no label %s in %q", a.Name, m[1], text)
				}
			}
		}
	}
}

// TestLacking: what the check above must find.
func TestLacking(t *testing.T) {
	e := exported{series: map[string][]map[string]string{"lagoon_tier_up": {{"tier": "ssd"}}}, declared: map[string][]string{"lagoon_later": {"io"}}}
	for text, want := range map[string]string{
		`lagoon_tier_up{tier="ssd",instance="a"} == 0`:                 "",
		`sum by (tier, job) (lagoon_tier_up) == 0`:                     "",
		`max without (io) (lagoon_later{io="read"})`:                   "",
		`lagoon_tear_up == 0`:                                          "no metric lagoon_tear_up",
		`lagoon_tier_up{teir="ssd"}`:                                   "lagoon_tier_up has no label teir; no series lagoon_tier_up{teir=\"ssd\"}",
		`lagoon_tier_up{tier="sdd"}`:                                   `no series lagoon_tier_up{tier="sdd"}`,
		`sum by (path) (lagoon_tier_up)`:                               "by or without (path): no label of what it selects",
		`lagoon_tier_up > ignoring (level) lagoon_later{kind!="read"}`: "lagoon_later has no label kind; on or ignoring (level): no label of what it selects",
	} {
		expr, err := promql.ParseExpr(text)
		if err != nil {
			t.Fatal(err)
		}
		if got := e.lacks(expr); got != want {
			t.Errorf("%s\n got %q\nwant %q", text, got, want)
		}
	}
	if got := declared(t)["lagoon_tier_oldest_io_seconds"]; !slices.Equal(got, []string{"tier", "io"}) {
		t.Errorf("declared labels: %q", got)
	}
}
