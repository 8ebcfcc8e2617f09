package report

import (
	"fmt"
	"html/template"
	"io"
	"math"
	"strings"
)

// HTML writes one self-contained page: for each role a chart of p50 and p99 per second, those of several runs one below the other on
// the same scale, the backlog's MB/s, phases marked, and the tables. No script, nothing loaded from elsewhere.
func HTML(w io.Writer, runs ...*Isolation) error {
	page := htmlPage{Title: "lagoon-bench isolation"}
	names := columns(runs)
	for _, r := range runs {
		page.end = max(page.end, float64(len(r.Backlog)))
	}
	for i, name := range names {
		page.Legend = append(page.Legend, legend{name, colour(i)})
	}
	for _, role := range Roles {
		page.add(runs, names, func(i int, r *Isolation) *chart {
			c := &chart{title: role + ": p99 per second, ms (thin: p50)", log: true}
			c.role(r, role, i)
			return c
		})
	}
	page.add(runs, names, func(i int, r *Isolation) *chart {
		c := &chart{title: "backlog, MB/s"}
		c.backlog(r, i)
		return c
	})
	var text strings.Builder
	for i, r := range runs {
		if i > 0 {
			text.WriteString("\n\n")
		}
		if err := r.Text(&text); err != nil {
			return err
		}
	}
	page.Text = text.String()
	return htmlTemplate.Execute(w, page)
}

type htmlPage struct {
	Title  string
	Legend []legend
	Charts []template.HTML
	Text   string

	end float64 // in seconds, of every chart
}

// add draws a chart for each run that has something in it, all on one scale.
func (p *htmlPage) add(runs []*Isolation, names []string, draw func(i int, r *Isolation) *chart) {
	var charts []*chart
	low, high, end := math.Inf(1), 0.0, p.end
	for i, r := range runs {
		c := draw(i, r)
		if len(c.lines) == 0 {
			continue
		}
		if len(runs) > 1 {
			c.title = names[i] + ", " + c.title
		}
		c.phases(r)
		l, h := c.bounds()
		low, high, end = min(low, l), max(high, h), max(end, c.end)
		charts = append(charts, c)
	}
	for _, c := range charts {
		c.low, c.high, c.end = low, high, end
		p.Charts = append(p.Charts, template.HTML(c.svg())) //nolint:gosec // made of numbers and escaped text
	}
}

type legend struct{ Name, Colour string }

var htmlTemplate = template.Must(template.New("page").Parse(`<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{{.Title}}</title>
<style>
body { font: 14px/1.4 system-ui, sans-serif; margin: 1.5rem; max-width: 70rem; color: #222; background: #fff; }
svg { display: block; margin: 0 0 1rem; max-width: 100%; }
svg text { font: 11px system-ui, sans-serif; fill: #444; }
svg text.title { font-size: 13px; font-weight: 600; fill: #222; }
pre { font: 12px/1.35 ui-monospace, monospace; overflow-x: auto; }
.key { display: inline-block; width: 1.5em; height: .3em; margin: 0 .4em .2em 1em; }
</style></head><body>
<h1>{{.Title}}</h1>
<p>{{range .Legend}}<span class="key" style="background:{{.Colour}}"></span>{{.Name}}{{end}}</p>
<p>A second has the latencies of the records that were due in it, from their scheduled time. Shaded: phases with backlog readers.</p>
{{range .Charts}}{{.}}
{{end}}<pre>{{.Text}}</pre>
</body></html>
`))

// colour tells runs apart, also for the colour-blind (Okabe and Ito).
func colour(i int) string {
	return []string{"#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"}[i%6]
}

type line struct {
	colour string
	width  float64
	xy     [][2]float64
}

// chart is one SVG: time in seconds to the right.
type chart struct {
	title string
	log   bool
	lines []line
	bands []Phase
	end   float64

	low, high float64 // of the scale
}

func (c *chart) role(r *Isolation, role string, i int) {
	for _, s := range r.Series {
		if s.Role != role || len(s.Points) == 0 {
			continue
		}
		p50, p99 := line{colour: colour(i), width: 0.6}, line{colour: colour(i), width: 1.6}
		for _, p := range s.Points {
			x := float64(p.Second) + 0.5
			p50.xy = append(p50.xy, [2]float64{x, p.P50})
			p99.xy = append(p99.xy, [2]float64{x, p.P99})
		}
		c.lines = append(c.lines, p50, p99)
	}
}

func (c *chart) backlog(r *Isolation, i int) {
	l := line{colour: colour(i), width: 1.6}
	for second, v := range r.Backlog {
		l.xy = append(l.xy, [2]float64{float64(second) + 0.5, v})
	}
	c.lines = append(c.lines, l)
}

// title names a phase in a chart.
func (p *Phase) title() string {
	if p.Repeat > 0 {
		return fmt.Sprintf("%s #%d", p.Name, p.Repeat)
	}
	return p.Name
}

// phases marks the run's.
func (c *chart) phases(r *Isolation) {
	c.bands = r.Phases
	for _, l := range c.lines {
		for _, p := range l.xy {
			c.end = max(c.end, p[0]+0.5)
		}
	}
	for _, p := range c.bands {
		c.end = max(c.end, p.ToSeconds)
	}
}

// The drawing area in user units.
const (
	chartWidth, chartHeight = 1000.0, 190.0
	left, right             = 55.0, 990.0
	top, bottom             = 34.0, 165.0
)

func (c *chart) svg() string {
	low, high := c.low, c.high
	x := func(s float64) float64 { return left + (right-left)*s/max(c.end, 1) }
	y := func(v float64) float64 {
		if c.log {
			return bottom - (bottom-top)*math.Log10(max(v, low)/low)/math.Log10(high/low)
		}
		return bottom - (bottom-top)*(v-low)/(high-low)
	}
	var b strings.Builder
	fmt.Fprintf(&b, `<svg viewBox="0 0 %.0f %.0f" width="%.0f" role="img"><title>%s</title>`, chartWidth, chartHeight, chartWidth, template.HTMLEscapeString(c.title))
	for _, p := range c.bands {
		fill := "none"
		if p.BacklogReaders > 0 || p.MixedCold {
			fill = "#f2ead8"
		}
		fmt.Fprintf(&b, `<rect x="%.1f" y="%.0f" width="%.1f" height="%.0f" fill="%s" stroke="#ccc" stroke-width="0.5"/>`, x(p.FromSeconds), top, x(p.ToSeconds)-x(p.FromSeconds), bottom-top, fill)
		fmt.Fprintf(&b, `<text x="%.1f" y="%.0f">%s</text>`, x(p.FromSeconds)+3, top+11, template.HTMLEscapeString(p.title()))
	}
	for _, v := range c.ticks(low, high) {
		fmt.Fprintf(&b, `<line x1="%.0f" x2="%.0f" y1="%.1f" y2="%.1f" stroke="#ddd" stroke-width="0.5"/><text x="%.0f" y="%.1f" text-anchor="end">%s</text>`, left, right, y(v), y(v), left-5, y(v)+4, number(v))
	}
	for step, s := timeStep(c.end), 0.0; s <= c.end; s += step {
		fmt.Fprintf(&b, `<text x="%.1f" y="%.0f" text-anchor="middle">%.0f s</text>`, x(s), bottom+15, s)
	}
	for _, l := range c.lines {
		fmt.Fprintf(&b, `<polyline fill="none" stroke="%s" stroke-width="%.1f" points="`, l.colour, l.width)
		for i, p := range l.xy {
			if i > 0 {
				b.WriteByte(' ')
			}
			fmt.Fprintf(&b, "%.1f,%.1f", x(p[0]), y(p[1]))
		}
		b.WriteString(`"/>`)
	}
	fmt.Fprintf(&b, `<text class="title" x="%.0f" y="18">%s</text></svg>`, left, template.HTMLEscapeString(c.title))
	return b.String()
}

// bounds for the scale of the values: powers of ten around them, or from 0.
func (c *chart) bounds() (low, high float64) {
	low, high = math.Inf(1), 0
	for _, l := range c.lines {
		for _, p := range l.xy {
			low, high = min(low, p[1]), max(high, p[1])
		}
	}
	if !c.log {
		return 0, max(high*1.05, 1)
	}
	low = math.Pow(10, math.Floor(math.Log10(max(min(low, high), 0.1))))
	return low, max(math.Pow(10, math.Ceil(math.Log10(max(high, 0.1)))), low*10)
}

func (c *chart) ticks(low, high float64) (out []float64) {
	if c.log {
		for v := low; v <= high*1.01; v *= 10 {
			out = append(out, v)
		}
		return out
	}
	step := math.Pow(10, math.Floor(math.Log10(high)))
	if high/step < 3 {
		step /= 2
	}
	for v := 0.0; v <= high; v += step {
		out = append(out, v)
	}
	return out
}

func timeStep(end float64) float64 {
	for _, step := range []float64{1, 2, 5, 10, 20, 30, 60, 120, 300, 600} {
		if end/step <= 20 {
			return step
		}
	}
	return 1200
}

// number without what a chart does not need.
func number(v float64) string {
	switch {
	case v >= 1000:
		return fmt.Sprintf("%g k", v/1000)
	default:
		return fmt.Sprintf("%g", v)
	}
}
