package report

import (
	"maps"
	"math"
	"slices"
)

// medians is one phase for each name with the median of each figure by itself; none when nothing was repeated. The median of an even
// number is the mean of the middle two. Counts of failures are sums.
func medians(phases []Phase) (out []Phase) {
	if !slices.ContainsFunc(phases, func(p Phase) bool { return p.Repeat > 1 }) {
		return nil
	}
	var names []string
	all := map[string][]Phase{}
	for _, p := range phases {
		if all[p.Name] == nil {
			names = append(names, p.Name)
		}
		all[p.Name] = append(all[p.Name], p)
	}
	for _, name := range names {
		out = append(out, medianPhase(all[name]))
	}
	return out
}

func medianPhase(of []Phase) Phase {
	m := Phase{Name: of[0].Name, FromSeconds: of[0].FromSeconds, ToSeconds: of[0].ToSeconds, BacklogReaders: of[0].BacklogReaders,
		MixedCold: of[0].MixedCold, Latency: map[string]Latency{}}
	var backlogs []Backlog
	var uses []Use
	latencies, recoveries := map[string][]Latency{}, map[string][]Recovery{}
	for _, p := range of {
		for role, l := range p.Latency {
			latencies[role] = append(latencies[role], l)
		}
		for role, v := range p.Recovery {
			recoveries[role] = append(recoveries[role], *v)
		}
		if p.Backlog != nil {
			backlogs = append(backlogs, *p.Backlog)
		}
		uses = append(uses, p.Use)
	}
	for role, ls := range latencies {
		m.Latency[role] = medianLatency(ls)
	}
	for role, vs := range recoveries {
		if m.Recovery == nil {
			m.Recovery = map[string]*Recovery{}
		}
		v := medianRecovery(vs)
		m.Recovery[role] = &v
	}
	if len(backlogs) > 0 {
		b := medianBacklog(backlogs)
		m.Backlog = &b
	}
	m.Use = medianUse(uses)
	return m
}

// median of a figure that each of them has.
func median[T any](of []T, figure func(*T) float64) float64 {
	values := make([]float64, len(of))
	for i := range of {
		values[i] = figure(&of[i])
	}
	slices.Sort(values)
	n := len(values)
	if n == 0 {
		return 0
	}
	return (values[(n-1)/2] + values[n/2]) / 2
}

// medianOf a figure that some of them may lack; nil when all do.
func medianOf[T any, N int64 | float64](of []T, figure func(*T) *N) *N {
	var values []N
	for i := range of {
		if v := figure(&of[i]); v != nil {
			values = append(values, *v)
		}
	}
	if len(values) == 0 {
		return nil
	}
	m := N(median(values, func(v *N) float64 { return float64(*v) }))
	return &m
}

func sum[T any](of []T, figure func(*T) int64) (n int64) {
	for i := range of {
		n += figure(&of[i])
	}
	return n
}

func medianLatency(of []Latency) Latency {
	m := Latency{Unfinished: sum(of, func(l *Latency) int64 { return l.Unfinished })}
	// A role without records in one repetition says nothing there.
	of = slices.DeleteFunc(slices.Clone(of), func(l Latency) bool { return l.Count == 0 })
	m.Count = int64(median(of, func(l *Latency) float64 { return float64(l.Count) }))
	m.P50 = median(of, func(l *Latency) float64 { return l.P50 })
	m.P99 = median(of, func(l *Latency) float64 { return l.P99 })
	m.P999 = median(of, func(l *Latency) float64 { return l.P999 })
	m.Max = median(of, func(l *Latency) float64 { return l.Max })
	var ratios []Ratios
	for _, l := range of {
		if l.Ratio != nil {
			ratios = append(ratios, *l.Ratio)
		}
	}
	if len(ratios) > 0 {
		m.Ratio = &Ratios{
			P50: median(ratios, func(q *Ratios) float64 { return q.P50 }), P99: median(ratios, func(q *Ratios) float64 { return q.P99 }),
			P999: median(ratios, func(q *Ratios) float64 { return q.P999 }), Max: median(ratios, func(q *Ratios) float64 { return q.Max }),
		}
	}
	return m
}

// medianRecovery counts a role that was not back in time as slower than any that was.
func medianRecovery(of []Recovery) Recovery {
	slices.SortFunc(of, func(a, b Recovery) int {
		key := func(v Recovery) float64 {
			if !v.Recovered {
				return math.MaxFloat64/2 + v.Seconds
			}
			return v.Seconds
		}
		if d := key(a) - key(b); d != 0 {
			return int(math.Copysign(1, d))
		}
		return 0
	})
	m := of[len(of)/2]
	m.BoundMs = median(of, func(v *Recovery) float64 { return v.BoundMs })
	return m
}

func medianBacklog(of []Backlog) Backlog {
	m := Backlog{
		Bytes: int64(median(of, func(b *Backlog) float64 { return float64(b.Bytes) })), MBPerSec: median(of, func(b *Backlog) float64 { return b.MBPerSec }),
		EachMBPerS: []float64{}, Spread: median(of, func(b *Backlog) float64 { return b.Spread }),
		OfLimit: medianOf(of, func(b *Backlog) *float64 { return b.OfLimit }), OfLeft: medianOf(of, func(b *Backlog) *float64 { return b.OfLeft }),
		Gaps: sum(of, func(b *Backlog) int64 { return b.Gaps }), BadBatches: sum(of, func(b *Backlog) int64 { return b.BadBatches }),
		FullChecked: sum(of, func(b *Backlog) int64 { return b.FullChecked }),
	}
	for i := range of[0].EachMBPerS {
		m.EachMBPerS = append(m.EachMBPerS, median(of, func(b *Backlog) float64 {
			if i < len(b.EachMBPerS) {
				return b.EachMBPerS[i]
			}
			return 0
		}))
	}
	return m
}

func medianUse(of []Use) Use {
	m := Use{
		GeneratorCores: median(of, func(u *Use) float64 { return u.GeneratorCores }),
		BrokerCores:    medianOf(of, func(u *Use) *float64 { return u.BrokerCores }), BrokerCPU: medianOf(of, func(u *Use) *float64 { return u.BrokerCPU }),
		AnonBytes:   medianOf(of, func(u *Use) *int64 { return u.AnonBytes }),
		ProcessRead: medianOf(of, func(u *Use) *int64 { return u.ProcessRead }), ProcessWritten: medianOf(of, func(u *Use) *int64 { return u.ProcessWritten }),
		ReadPerServed: medianOf(of, func(u *Use) *float64 { return u.ReadPerServed }),
		RealtimeRead:  medianOf(of, func(u *Use) *int64 { return u.RealtimeRead }), RealtimeShare: medianOf(of, func(u *Use) *float64 { return u.RealtimeShare }),
	}
	var late []Latency
	for _, u := range of {
		late = append(late, u.Late)
	}
	m.Late = medianLatency(late)
	for i, d := range of[0].Devices {
		at := func(figure func(DeviceUse) int64) int64 {
			return int64(median(of, func(u *Use) float64 {
				if i < len(u.Devices) {
					return float64(figure(u.Devices[i]))
				}
				return 0
			}))
		}
		m.Devices = append(m.Devices, DeviceUse{Name: d.Name, ReadBytes: at(func(d DeviceUse) int64 { return d.ReadBytes }),
			WrittenBytes: at(func(d DeviceUse) int64 { return d.WrittenBytes })})
	}
	m.CacheBytes = medianMap(of, func(u *Use) map[string]int64 { return u.CacheBytes })
	m.HotWindow = medianMap(of, func(u *Use) map[string]float64 { return u.HotWindow })
	return m
}

func medianMap[N int64 | float64](of []Use, figure func(*Use) map[string]N) map[string]N {
	out := map[string]N{}
	for i := range of {
		maps.Copy(out, figure(&of[i]))
	}
	for name := range out {
		out[name] = *medianOf(of, func(u *Use) *N {
			v, ok := figure(u)[name]
			if !ok {
				return nil
			}
			return &v
		})
	}
	if len(out) == 0 {
		return nil
	}
	return out
}
