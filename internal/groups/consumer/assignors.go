package consumer

import (
	"cmp"
	"slices"
)

// Plan is what an assignor is given. Members are ascending by id.
type Plan struct{ Members []PlanMember }

// PlanMember is one member: the topics that it reads and that exist, each once, and its target until now.
type PlanMember struct {
	ID, InstanceID string
	Topics         []PlanTopic
	Had            Assignment
}

// PlanTopic is a topic and how many partitions it has.
type PlanTopic struct {
	ID         TopicID
	Partitions int32
}

// Assignor gives every partition of every topic that somebody reads to one of its readers. The answer is in the order of the members.
type Assignor func(Plan) []Assignment

// DefaultAssignor is for groups whose members name none.
const DefaultAssignor = "uniform"

// Assignors by the names that clients use (KIP-848).
var Assignors = map[string]Assignor{"uniform": Uniform, "range": Range}

// planTopic is a topic with its readers, as indexes of members.
type planTopic struct {
	PlanTopic
	readers []int
}

// byTopic lists the topics with their readers, by id.
func (p Plan) byTopic() []planTopic {
	index := map[TopicID]int{}
	var out []planTopic
	for i, m := range p.Members {
		for _, t := range m.Topics {
			at, ok := index[t.ID]
			if !ok {
				at = len(out)
				index[t.ID] = at
				out = append(out, planTopic{PlanTopic: t})
			}
			out[at].readers = append(out[at].readers, i)
		}
	}
	slices.SortFunc(out, func(a, b planTopic) int { return slices.Compare(a.ID[:], b.ID[:]) })
	return out
}

// Range gives each reader of a topic a run of its partitions, of equal length but for one. Partitions of the same number in topics with the
// same readers and as many partitions go to the same member, so that their records can be joined. Members keep their order: those that had
// partitions by the first of them, new ones last.
func Range(p Plan) []Assignment {
	order := make([]int, len(p.Members)) // the place of each member
	first := func(m PlanMember) int32 {
		low := int32(1<<31 - 1)
		for _, t := range m.Had {
			low = min(low, t.Partitions[0])
		}
		return low
	}
	sorted := make([]int, len(p.Members))
	firsts := make([]int32, len(p.Members))
	for i, m := range p.Members {
		sorted[i], firsts[i] = i, first(m)
	}
	slices.SortStableFunc(sorted, func(a, b int) int {
		return cmp.Or(cmp.Compare(firsts[a], firsts[b]), cmp.Compare(p.Members[a].InstanceID, p.Members[b].InstanceID))
	})
	for place, i := range sorted {
		order[i] = place
	}
	out := make([][]TopicPartitions, len(p.Members))
	for _, t := range p.byTopic() {
		slices.SortFunc(t.readers, func(a, b int) int { return cmp.Compare(order[a], order[b]) })
		n, extra := t.Partitions/int32(len(t.readers)), t.Partitions%int32(len(t.readers))
		from := int32(0)
		for k, reader := range t.readers {
			to := from + n
			if int32(k) < extra {
				to++
			}
			if to > from {
				out[reader] = append(out[reader], TopicPartitions{ID: t.ID, Partitions: run(from, to)})
			}
			from = to
		}
	}
	return normalized(out)
}

func run(from, to int32) []int32 {
	out := make([]int32, 0, to-from)
	for p := from; p < to; p++ {
		out = append(out, p)
	}
	return out
}

func normalized(lists [][]TopicPartitions) []Assignment {
	out := make([]Assignment, len(lists))
	for i, l := range lists {
		out[i] = Normalize(l)
	}
	return out
}

// Uniform gives every member as many partitions as every other, as far as subscriptions allow, and moves no partition without need.
func Uniform(p Plan) []Assignment {
	u := &uniform{topics: p.byTopic(), held: make([][][]int32, len(p.Members)), load: make([]int, len(p.Members))}
	if len(p.Members) == 0 {
		return nil
	}
	for i := range u.held {
		u.held[i] = make([][]int32, len(u.topics))
	}
	same := !slices.ContainsFunc(u.topics, func(t planTopic) bool { return len(t.readers) != len(p.Members) })
	quota := 1 << 31
	if same {
		total := 0
		for _, t := range u.topics {
			total += int(t.Partitions)
		}
		quota = total / len(p.Members)
		u.extra = total % len(p.Members)
	}
	free := u.keep(p, quota)
	u.fill(free)
	if !same {
		u.level()
	}
	out := make([][]TopicPartitions, len(p.Members))
	for i := range out {
		for t, partitions := range u.held[i] {
			if len(partitions) > 0 {
				out[i] = append(out[i], TopicPartitions{ID: u.topics[t].ID, Partitions: partitions})
			}
		}
	}
	return normalized(out)
}

// uniform is one assignment in the making.
type uniform struct {
	topics []planTopic // by id
	held   [][][]int32 // partitions by member and topic
	load   []int       // partitions of each member
	extra  int         // members that may have one more than the quota
}

type loosePartition struct{ topic, partition int }

// keep leaves members what they had and still read, up to a quota, and lists what is free then.
func (u *uniform) keep(p Plan, quota int) (free []loosePartition) {
	taken := make([][]bool, len(u.topics))
	reads := make([]map[int]bool, len(u.topics))
	for t, topic := range u.topics {
		taken[t], reads[t] = make([]bool, topic.Partitions), make(map[int]bool, len(topic.readers))
		for _, r := range topic.readers {
			reads[t][r] = true
		}
	}
	find := func(id TopicID) (int, bool) {
		return slices.BinarySearchFunc(u.topics, id, func(t planTopic, id TopicID) int { return slices.Compare(t.ID[:], id[:]) })
	}
	// Those that had most keep the extra ones: that moves least.
	order := make([]int, len(p.Members))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(p.Members[b].Had.Len(), p.Members[a].Had.Len()) })
	for _, i := range order {
		limit := quota
		if p.Members[i].Had.Len() > quota && u.extra > 0 {
			limit++
		}
		for _, had := range p.Members[i].Had {
			t, ok := find(had.ID)
			if !ok || !reads[t][i] {
				continue
			}
			for _, n := range had.Partitions {
				if int(n) < len(taken[t]) && !taken[t][n] && u.load[i] < limit {
					taken[t][n] = true
					u.give(i, t, n)
				}
			}
		}
		if u.load[i] > quota {
			u.extra--
		}
	}
	for t := range taken {
		for n, is := range taken[t] {
			if !is {
				free = append(free, loosePartition{t, n})
			}
		}
	}
	return free
}

func (u *uniform) give(member, topic int, partition int32) {
	u.held[member][topic] = append(u.held[member][topic], partition)
	u.load[member]++
}

// fill gives free partitions to the reader with the fewest, topics with few readers first.
func (u *uniform) fill(free []loosePartition) {
	slices.SortStableFunc(free, func(a, b loosePartition) int {
		return cmp.Compare(len(u.topics[a.topic].readers), len(u.topics[b.topic].readers))
	})
	for len(free) > 0 {
		t := free[0].topic
		n := 0
		for n < len(free) && free[n].topic == t {
			n++
		}
		h := &loads{load: u.load, members: slices.Clone(u.topics[t].readers)}
		h.init()
		for _, f := range free[:n] {
			u.give(h.least(), t, int32(f.partition))
			h.down()
		}
		free = free[n:]
	}
}

// loads is a heap of members by load, then by place.
type loads struct {
	load    []int
	members []int
}

func (h *loads) less(a, b int) bool {
	return cmp.Or(cmp.Compare(h.load[h.members[a]], h.load[h.members[b]]), cmp.Compare(h.members[a], h.members[b])) < 0
}

func (h *loads) init() {
	for i := len(h.members)/2 - 1; i >= 0; i-- {
		h.sink(i)
	}
}

func (h *loads) least() int { return h.members[0] }

// down puts the first in its place after its load has grown.
func (h *loads) down() { h.sink(0) }

func (h *loads) sink(i int) {
	for {
		child := 2*i + 1
		if child >= len(h.members) {
			return
		}
		if child+1 < len(h.members) && h.less(child+1, child) {
			child++
		}
		if !h.less(child, i) {
			return
		}
		h.members[i], h.members[child] = h.members[child], h.members[i]
		i = child
	}
}

// levelSteps bounds the work of level, in looks at a member or topic: about 50 ms. Beyond it loads stay as even as they are by then.
const levelSteps = 5_000_000

// level evens loads out where readers differ. A member with more than it should have hands a partition over to one that reads its topic, which
// hands another one on, until it comes to a member with at least two fewer than the first: the shortest such chain each time, for the most
// loaded member that has one. When nobody has one, no assignment is more even.
func (u *uniform) level() {
	steps := 0
	reads := make([][]int, len(u.load)) // topics by member
	for t := range u.topics {
		for _, r := range u.topics[t].readers {
			reads[r] = append(reads[r], t)
		}
	}
	done := make([]bool, len(u.load)) // no chain begins here; none will, for loads above it only fall
	for steps < levelSteps {
		most := -1
		for i, load := range u.load {
			if !done[i] && (most < 0 || load > u.load[most]) {
				most = i
			}
		}
		steps += len(u.load)
		if most < 0 {
			return
		}
		if !u.chain(most, reads, &steps) {
			done[most] = true
		} else {
			clear(done)
		}
	}
}

// chain moves one partition away from a member, by way of others if need be. It tells whether it could.
func (u *uniform) chain(from int, reads [][]int, steps *int) bool {
	type hop struct{ member, topic int } // who gives, and of which topic
	came := make([]hop, len(u.load))
	seenMember, seenTopic := make([]bool, len(u.load)), make([]bool, len(u.topics))
	seenMember[from] = true
	queue := []int{from}
	for len(queue) > 0 {
		m := queue[0]
		queue = queue[1:]
		for _, t := range reads[m] {
			*steps++
			if seenTopic[t] || len(u.held[m][t]) == 0 {
				continue
			}
			seenTopic[t] = true
			for _, to := range u.topics[t].readers {
				*steps++
				if seenMember[to] {
					continue
				}
				seenMember[to] = true
				came[to] = hop{m, t}
				if u.load[to]+2 <= u.load[from] {
					for at := to; at != from; at = came[at].member {
						giver, topic := came[at].member, came[at].topic
						held := u.held[giver][topic]
						last := held[len(held)-1]
						u.held[giver][topic] = held[:len(held)-1]
						u.held[at][topic] = append(u.held[at][topic], last)
					}
					u.load[from]--
					u.load[to]++
					return true
				}
				queue = append(queue, to)
			}
		}
	}
	return false
}
