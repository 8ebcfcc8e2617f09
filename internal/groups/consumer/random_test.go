package consumer_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"lagoon/internal/groups/classic"
	"lagoon/internal/groups/consumer"
)

// client is a consumer as KIP-848 wants it.
type client struct {
	id, instance string
	topics       []string
	regex        string
	epoch        int32
	joined       bool
	owned        consumer.Assignment // what the application reads
	target       consumer.Assignment // what it was told last
	said         bool                // the broker knows owned
	news         bool                // target has changed since it was followed
}

// beat sends a heartbeat and follows the answer, unless that is lost.
func (c *client) beat(w *world, lost bool) error {
	r := consumer.HeartbeatRequest{MemberID: c.id, Epoch: c.epoch, InstanceID: c.instance, ClientID: c.id, Host: "/h", Rebalance: -1}
	if !c.said {
		c.follow() // what it says it has is not about to change
	}
	if !c.joined || !c.said {
		r.Topics, r.Rebalance, r.Owned = c.topics, time.Hour, append([]consumer.TopicPartitions{}, c.owned...)
		r.Regex = &c.regex
	}
	res := w.beatWith(r)
	if w.full && len(w.g.Records()) > 0 {
		c.said = false
		return nil
	}
	if lost {
		c.said = false
		return nil
	}
	if res.Refused != nil {
		switch res.Refused.Code {
		case classic.UnreleasedInstanceID:
			return nil // later
		case classic.FencedMemberEpoch, classic.UnknownMemberID:
			c.drop()
			return nil
		}
		return fmt.Errorf("%s: %s: %s", c.id, res.Refused.Code, res.Refused.Text)
	}
	c.joined, c.said, c.epoch = true, true, res.Epoch
	if res.Assigned {
		c.target, c.news = res.Assignment, c.news || !c.target.Equal(res.Assignment)
	}
	return nil
}

// follow gives up what it should, takes what is new, and says so with the next heartbeat.
func (c *client) follow() {
	if c.joined && c.news {
		c.owned, c.said, c.news = c.target, false, false
	}
}

func (c *client) drop() {
	*c = client{id: c.id, instance: c.instance, topics: c.topics, regex: c.regex}
}

// TestRandomGroups lets members come, go, fail, change what they read and lose answers, while topics grow and storage fails. No partition is ever
// read by two; when it is quiet, every partition is read and loads are even. LAGOON_SEED repeats a run.
func TestRandomGroups(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("LAGOON_SEED"); s != "" {
		seed, _ = strconv.ParseUint(s, 10, 64)
	}
	for run := range 25 {
		rng := rand.New(rand.NewPCG(seed, uint64(run)))
		if err := randomGroup(rng, run%2 == 0); err != nil {
			t.Fatalf("LAGOON_SEED=%d, run %d: %v", seed, run, err)
		}
	}
}

func randomGroup(rng *rand.Rand, same bool) error {
	w := newWorld()
	w.set.Session = time.Hour // nobody who lives is silent for so long
	names := []string{"a0", "a1", "b0", "b1", "c"}
	for _, n := range names {
		w.topics = w.topics.with(n, int32(1+rng.IntN(8)))
	}
	var clients []*client
	count := 0
	subscribe := func(c *client) {
		c.topics, c.regex, c.said = []string{"a0", "a1", "b0", "b1", "c"}, "", false
		if same {
			return
		}
		c.topics = nil
		for _, n := range names {
			if rng.IntN(2) == 0 {
				c.topics = append(c.topics, n)
			}
		}
		switch {
		case len(c.topics) == 0:
			c.topics, c.regex = []string{}, "a.*"
		case rng.IntN(4) == 0:
			c.regex = "b."
		}
	}
	check := func() error {
		if fault := w.settle(); fault != "" {
			return fmt.Errorf("%s", fault)
		}
		readers := map[string]string{}
		for _, c := range clients {
			for _, tp := range c.owned {
				for _, p := range tp.Partitions {
					key := fmt.Sprint(tp.ID, p)
					if other, twice := readers[key]; twice {
						return fmt.Errorf("%s-%d is read by %s and %s", tp.ID[:2], p, other, c.id)
					}
					readers[key] = c.id
				}
			}
		}
		return nil
	}
	for range 300 {
		w.full = rng.IntN(20) == 0
		w.now = w.now.Add(time.Duration(rng.IntN(3)) * time.Second)
		switch op := rng.IntN(20); {
		case op == 0 || len(clients) == 0:
			count++
			c := &client{id: fmt.Sprintf("m%d", count)}
			if rng.IntN(3) == 0 {
				c.instance = "i" + c.id
			}
			subscribe(c)
			clients = append(clients, c)
		case op == 1: // leaves; static ones for a time, and come back under another id
			i := rng.IntN(len(clients))
			c := clients[i]
			if !c.joined || w.full {
				break
			}
			epoch := int32(-1)
			if c.instance != "" {
				epoch = -2
			}
			w.beatWith(consumer.HeartbeatRequest{MemberID: c.id, Epoch: epoch, InstanceID: c.instance})
			clients = slices.Delete(clients, i, i+1)
			if epoch == -2 {
				count++
				back := &client{id: fmt.Sprintf("m%d", count), instance: c.instance}
				subscribe(back)
				clients = append(clients, back)
			}
		case op == 2 && rng.IntN(3) == 0: // dies
			i := rng.IntN(len(clients))
			clients = slices.Delete(clients, i, i+1)
			for range 12 { // the others live on while its session ends
				w.now = w.now.Add(6 * time.Minute)
				w.full = false
				for _, c := range clients {
					if err := c.beat(w, false); err != nil {
						return err
					}
					c.follow()
					w.settle()
				}
				w.g.Tick(w.now)
				if err := check(); err != nil {
					return err
				}
			}
		case op == 3:
			subscribe(clients[rng.IntN(len(clients))])
		case op == 4:
			n := names[rng.IntN(len(names))]
			w.topics = w.topics.with(n, w.topics.parts[n]+1)
		case op == 5:
			w.settle()
			w.g = w.replay()
			w.g.Start(w.now, w.set, w.topics)
		default:
			c := clients[rng.IntN(len(clients))]
			if err := c.beat(w, rng.IntN(10) == 0); err != nil {
				return err
			}
			if rng.IntN(2) == 0 && !w.full {
				c.follow()
			}
		}
		w.g.Tick(w.now)
		if err := check(); err != nil {
			return err
		}
	}
	w.full = false
	for range 60 {
		w.now = w.now.Add(time.Second)
		for _, c := range clients {
			if err := c.beat(w, false); err != nil {
				return err
			}
			c.follow()
			if err := check(); err != nil {
				return err
			}
		}
		w.g.Tick(w.now)
		w.settle()
	}
	if len(clients) > 0 && w.g.State() != consumer.StableGroup {
		return fmt.Errorf("not stable:\n%s", picture(w.g))
	}
	return w.even(clients)
}

// even checks that everything that somebody subscribes to is read, and that no single move makes loads more even.
func (w *world) even(clients []*client) error {
	reads := func(c *client, name string) bool {
		return slices.Contains(c.topics, name) || c.regex != "" && slices.Contains(w.topics.match(c.regex).Topics, name)
	}
	for name, n := range w.topics.parts {
		least, wanted := 1<<30, false
		for _, c := range clients {
			if reads(c, name) {
				wanted, least = true, min(least, c.owned.Len())
			}
		}
		for p := range n {
			i := slices.IndexFunc(clients, func(c *client) bool { return c.owned.Has(topicID(name), p) })
			switch {
			case wanted && i < 0:
				return fmt.Errorf("%s-%d is read by nobody:\n%s", name, p, picture(w.g))
			case i >= 0 && !reads(clients[i], name):
				return fmt.Errorf("%s reads %s-%d without a subscription:\n%s", clients[i].id, name, p, picture(w.g))
			case i >= 0 && clients[i].owned.Len() > least+1:
				return fmt.Errorf("%s has %d partitions, another reader of %s has %d:\n%s", clients[i].id, clients[i].owned.Len(), name, least, picture(w.g))
			}
		}
	}
	return nil
}

// TestUniformIsSticky: members come and go one at a time; what does not have to move stays.
func TestUniformIsSticky(t *testing.T) {
	topics := []consumer.PlanTopic{{ID: topicID("a"), Partitions: 20}, {ID: topicID("b"), Partitions: 13}}
	plan := func(ids []string, had map[string]consumer.Assignment) (map[string]consumer.Assignment, int) {
		p := consumer.Plan{}
		for _, id := range ids {
			p.Members = append(p.Members, consumer.PlanMember{ID: id, Topics: topics, Had: had[id]})
		}
		next, moved := map[string]consumer.Assignment{}, 0
		for i, a := range consumer.Uniform(p) {
			next[ids[i]] = a
			for _, tp := range a {
				for _, n := range tp.Partitions {
					if !had[ids[i]].Has(tp.ID, n) {
						moved++
					}
				}
			}
		}
		return next, moved
	}
	had, _ := plan([]string{"a", "b", "c"}, nil)
	for _, step := range []struct {
		ids  []string
		most int // partitions that have to move
	}{{[]string{"a", "b", "c", "d"}, 8}, {[]string{"a", "b", "d"}, 8}, {[]string{"a", "b", "d"}, 0}, {[]string{"0", "a", "b", "d"}, 9}} {
		next, moved := plan(step.ids, had)
		if moved > step.most {
			t.Errorf("%v: %d partitions moved, %d at most have to", step.ids, moved, step.most)
		}
		had = next
	}
}

// BenchmarkAssign is what a member that joins costs in a large group.
func BenchmarkAssign(b *testing.B) {
	for _, same := range []bool{true, false} {
		b.Run(fmt.Sprintf("same=%v", same), func(b *testing.B) {
			p := consumer.Plan{}
			var topics []consumer.PlanTopic
			for i := range 100 {
				topics = append(topics, consumer.PlanTopic{ID: topicID(fmt.Sprint("t", i)), Partitions: 100})
			}
			for m := range 1000 {
				mine := topics
				if !same {
					mine = topics[m%50 : 50+m%50]
				}
				p.Members = append(p.Members, consumer.PlanMember{ID: fmt.Sprintf("m%04d", m), Topics: mine})
			}
			for i, a := range consumer.Uniform(p) {
				p.Members[i].Had = a
			}
			p.Members = p.Members[1:]
			for b.Loop() {
				consumer.Uniform(p)
			}
		})
	}
}
