package groups

import (
	"fmt"
	"maps"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"
	"sync"
	"time"

	"lagoon/internal/groups/classic"
	"lagoon/internal/groups/consumer"
)

// ConsumerHeartbeat is one ConsumerGroupHeartbeat. The answer is for when wait says that what it tells is durable.
func (c *Coordinator) ConsumerHeartbeat(groupID string, r consumer.HeartbeatRequest) (res consumer.HeartbeatResult, wait Pending) {
	refused := func(code classic.Error, format string, args ...any) (consumer.HeartbeatResult, Pending) {
		return consumer.HeartbeatResult{Refused: &consumer.Refusal{Code: code, Text: fmt.Sprintf(format, args...)}}, Pending{}
	}
	if groupID == "" {
		return refused(classic.InvalidRequest, "GroupId can't be empty.")
	}
	if len(groupID) > maxName {
		return refused(classic.InvalidGroupID, "GroupId may have %d bytes at most.", maxName)
	}
	if bad := r.Check(); bad != nil {
		return consumer.HeartbeatResult{Refused: bad}, Pending{}
	}
	s, err := c.shardOf(groupID)
	if err != classic.None {
		return refused(err, "%s", "")
	}
	topics := c.opt.Topics()
	resolved := map[string]*consumer.Resolved(nil)
	if r.Regex != nil && *r.Regex != "" {
		x, err := c.regexes.match(*r.Regex, topics)
		if err != nil {
			return refused(classic.InvalidRegularExpression, "SubscribedTopicRegex `%.64s` is not a valid regular expression: %v.", *r.Regex, err)
		}
		resolved = map[string]*consumer.Resolved{*r.Regex: x}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if stale := s.stale(groupID, topics); len(stale) > 0 {
		s.mu.Unlock()
		matched := c.regexes.matchAll(stale, topics)
		maps.Copy(matched, resolved)
		resolved = matched
		s.mu.Lock()
	}
	now, set := time.Now(), c.opt.Settings(groupID)
	g := s.groups[groupID]
	m := (*consumer.Group)(nil)
	switch {
	case g != nil && g.consumer != nil:
		m = g.consumer
	case r.Epoch != 0 && g == nil:
		return refused(classic.GroupIDNotFound, "Group %.64s not found.", groupID)
	case r.Epoch != 0:
		return refused(classic.GroupIDNotFound, "Group %.64s is not a consumer group.", groupID)
	case g == nil || g.State() == classic.Empty:
		m = consumer.New(&c.opt.Consumer)
	default:
		if m = s.fromClassic(g, now, topics); m == nil {
			return refused(classic.GroupIDNotFound, "Group %.64s is not a consumer group: its members use another protocol than consumers, or an assignor with data of its own, or cannot be read.", groupID)
		}
	}
	if r.Epoch == 0 && c.full() && !m.Has(r.MemberID, r.InstanceID) || r.Epoch >= 0 && c.flooded() && r.Size() > m.Said(r.MemberID, r.InstanceID) {
		s.refuseForMemory(groupID)
		return refused(classic.GroupMaxSizeReached, "The broker has no memory for more members of groups, or for longer subscriptions.")
	}
	if res = m.Heartbeat(now, set, topics, resolved, r); res.Refused != nil {
		return res, wait
	}
	if len(m.Records()) == 0 {
		return res, s.untilStored(g)
	}
	if g == nil {
		g = s.take(groupID, m)
	}
	if err := s.storeConsumer(g, m); err != nil {
		if g.consumer == m && !m.Stored() && len(g.offsets) == 0 {
			s.drop(g)
		}
		return refused(refusal(err), "%s", "")
	}
	return res, s.untilStored(g)
}

// stale lists the regular expressions of a group that have to be matched.
func (s *shard) stale(groupID string, topics Topics) []string {
	if g := s.groups[groupID]; g != nil && g.consumer != nil {
		return g.consumer.Stale(topics)
	}
	return nil
}

// fromClassic is what a group with members becomes when one of the consumer protocol joins; nil when it cannot.
func (s *shard) fromClassic(g *group, now time.Time, topics Topics) *consumer.Group {
	from, ok := g.classic.Convertible()
	if !ok || len(from.Members) >= s.c.opt.Consumer.MaxSize {
		return nil
	}
	m, ok := consumer.FromClassic(&s.c.opt.Consumer, now, topics, from)
	if !ok {
		return nil
	}
	return m
}

// storeConsumer appends what has changed in m, which is the group's machine or is to become it. When that fails, m is as it was, and the group too.
func (s *shard) storeConsumer(g *group, m *consumer.Group) error {
	changes := m.Records()
	if len(changes) == 0 {
		s.schedule(g)
		return nil
	}
	s.builder.Reset()
	if g.consumer != m && g.last != nil {
		s.builder.Add(appendGroupKey(nil, g.id), nil)
	}
	for _, r := range changes {
		s.addConsumer(g.id, r)
	}
	next, err := s.append()
	if err != nil {
		s.c.opt.Logger.Warn("group metadata not stored", "group", g.id, "partition", s.partition, "err", err)
		m.Rollback(time.Now(), s.c.opt.Settings(g.id))
		s.schedule(g)
		return err
	}
	s.c.metrics.generations.Inc()
	m.Commit()
	g.next = next
	if old := g.classic; old != nil {
		old.Dissolve(time.Now())
		s.apply(g)
		s.c.opt.Logger.Info("group converted to the consumer protocol", "group", g.id, "members", m.Size())
		g.become(m)
		g.last = nil
	}
	s.settle(g)
	return nil
}

// settle makes known what a group of the consumer protocol has become.
func (s *shard) settle(g *group) {
	if g.consumer == nil {
		return
	}
	if g.consumer.Moved() {
		s.claim(g)
	}
	if g.consumer.OnlyClassic() && g.consumer.Size() <= s.c.opt.Classic.MaxSize {
		s.toClassic(g)
	}
	s.account(g)
	s.schedule(g)
}

// toClassic takes a group back to the classic protocol after its last member of the consumer protocol has gone. The others join again, but for one case:
// it was a static member that came back with the classic protocol and subscribes to what it did, so that everybody has what he is to. When it cannot be
// stored the group stays as it is, until the next event.
func (s *shard) toClassic(g *group) {
	now, settled := time.Now(), g.consumer.State() == consumer.StableGroup
	m, metadata := classic.FromConverted(&s.c.opt.Classic, g.consumer.ToClassic(), now)
	if err := s.replaceConsumer(g, func() { s.builder.Add(appendGroupKey(nil, g.id), appendGroupValue(nil, metadata)) }); err != nil {
		return
	}
	s.c.opt.Logger.Info("group converted to the classic protocol", "group", g.id, "members", m.Size())
	g.become(m)
	g.last = &metadata
	if !settled {
		m.Rebalance(now)
	}
	s.apply(g)
}

// toEmptyClassic makes an empty group one of the classic protocol.
func (s *shard) toEmptyClassic(g *group) error {
	if err := s.replaceConsumer(g, func() {}); err != nil {
		return err
	}
	g.become(classic.New(&s.c.opt.Classic, time.Now()))
	g.last = nil
	return nil
}

// replaceConsumer writes tombstones for a group of the consumer protocol, and in the same batch what takes its place.
func (s *shard) replaceConsumer(g *group, add func()) error {
	s.builder.Reset()
	for _, r := range g.consumer.Tombstones() {
		s.addConsumer(g.id, r)
	}
	add()
	if s.builder.Len() == 0 {
		return nil
	}
	_, err := s.append()
	if err != nil {
		s.c.opt.Logger.Warn("group not converted to the classic protocol yet", "group", g.id, "partition", s.partition, "err", err)
	}
	return err
}

// tick does what is due in a group of the consumer protocol. Members that could not be removed get another session.
func (s *shard) tick(g *group, now time.Time) {
	if gone := g.consumer.Tick(now); len(gone) > 0 {
		s.c.opt.Logger.Debug("members removed", "group", g.id, "members", gone)
	}
	_ = s.storeConsumer(g, g.consumer) // reported there
}

// untilStored is what an answer about a group has to wait for.
func (s *shard) untilStored(g *group) Pending {
	if g == nil || g.next <= s.log.Offsets().HighWatermark {
		return Pending{}
	}
	return s.pending(g.next)
}

// later answers when what the group has stored is durable, or with what failed makes of the error.
func later[T any](s *shard, g *group, answer chan<- T, res T, failed func(classic.Error) T) {
	wait := s.untilStored(g)
	switch {
	case wait.log == nil:
		answer <- res
	case s.c.ctx.Err() != nil:
		answer <- failed(classic.NotCoordinator)
	default:
		s.c.wg.Go(func() {
			if err := wait.Wait(s.c.ctx); err != classic.None {
				res = failed(err)
			}
			answer <- res
		})
	}
}

// joinConsumer is a JoinGroup to a group of the consumer protocol.
func (s *shard) joinConsumer(g *group, r classic.JoinRequest, answer chan<- classic.JoinResult) {
	failed := func(err classic.Error) classic.JoinResult {
		return classic.JoinResult{Err: err, MemberID: r.MemberID, Generation: -1}
	}
	if r.Session < s.c.opt.Classic.MinSession || r.Session > s.c.opt.Classic.MaxSession {
		answer <- failed(classic.InvalidSessionTimeout)
		return
	}
	res := g.consumer.Join(time.Now(), s.c.opt.Topics(), r)
	if err := s.storeConsumer(g, g.consumer); err != nil {
		res = failed(refusal(err))
	}
	if res.Err != classic.None {
		answer <- res
		return
	}
	later(s, g, answer, res, failed)
}

// beatConsumer is a Heartbeat of a member of the classic protocol.
func (s *shard) beatConsumer(g *group, memberID, instanceID string, generation int32) classic.Error {
	code := g.consumer.ClassicHeartbeat(time.Now(), s.c.opt.Topics(), memberID, instanceID, generation)
	if len(g.consumer.Records()) > 0 || code == classic.RebalanceInProgress {
		_ = s.storeConsumer(g, g.consumer) // reported there; the member asks again
	}
	return code
}

// ConsumerDescription is one group of the consumer protocol for people.
type ConsumerDescription struct {
	State              classic.State
	Epoch, TargetEpoch int32
	Assignor           string
	Members            []consumer.MemberView
	Topics             Topics // as they are now, for the names of what is assigned
}

// DescribeConsumer tells about a group of the consumer protocol. Errors: GroupIDNotFound, also for groups of the classic one, and those of a
// coordinator that is not ready.
func (c *Coordinator) DescribeConsumer(id string) (ConsumerDescription, classic.Error) {
	s, g, err := c.find(id)
	switch {
	case err == classic.UnknownMemberID:
		return ConsumerDescription{}, classic.GroupIDNotFound
	case err != classic.None:
		return ConsumerDescription{}, err
	}
	defer s.mu.Unlock()
	m := g.consumer
	if m == nil {
		return ConsumerDescription{}, classic.GroupIDNotFound
	}
	return ConsumerDescription{State: m.State(), Epoch: m.Epoch(), TargetEpoch: m.TargetEpoch(), Assignor: m.Assignor(), Members: m.Members(), Topics: c.opt.Topics()}, classic.None
}

// regexes matches subscriptions against the names of topics, each once per version of the topics. One at a time: clients choose the expressions.
type regexes struct {
	mu      sync.Mutex
	version uint64
	matched map[string]*consumer.Resolved
	names   int // of topics in matched
}

const (
	maxRegexProgram = 1000  // instructions; a name is matched in at most that many steps per byte
	maxRegexes      = 10000 // in the cache
	maxMatched      = 1e6   // names of topics in it: clients choose the expressions, and each may match all topics
)

// compileRegex accepts RE2 (KIP-848), for whole names.
func compileRegex(expr string) (*regexp.Regexp, error) {
	tree, err := syntax.Parse(expr, syntax.Perl)
	if err != nil {
		return nil, err
	}
	if _, err := syntax.Parse(expr+`\E`, syntax.Perl); err == nil {
		expr += `\E` // ends a \Q, which would quote what follows here as well
	}
	program, err := syntax.Compile(tree.Simplify())
	if err != nil {
		return nil, err
	}
	if n := len(program.Inst); n > maxRegexProgram {
		return nil, fmt.Errorf("it is too large: %d instructions, %d at most", n, maxRegexProgram)
	}
	return regexp.Compile(`\A(?:` + expr + `)\z`)
}

func (x *regexes) match(expr string, topics Topics) (*consumer.Resolved, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.version != topics.Version() || len(x.matched) >= maxRegexes || x.names >= maxMatched {
		x.version, x.matched, x.names = topics.Version(), map[string]*consumer.Resolved{}, 0
	}
	if done := x.matched[expr]; done != nil {
		return done, nil
	}
	re, err := compileRegex(expr)
	if err != nil {
		return nil, err
	}
	out := &consumer.Resolved{Version: topics.Version(), At: time.Now()}
	for _, name := range topics.Names() {
		if re.MatchString(name) {
			out.Topics = append(out.Topics, strings.Clone(name))
		}
	}
	slices.Sort(out.Topics)
	x.matched[expr] = out
	x.names += len(out.Topics)
	return out, nil
}

// matchAll gives no topics to what cannot be read: expressions that another release took, or of a damaged record.
func (x *regexes) matchAll(exprs []string, topics Topics) map[string]*consumer.Resolved {
	out := map[string]*consumer.Resolved{}
	for _, expr := range exprs {
		if m, err := x.match(expr, topics); err == nil {
			out[expr] = m
		} else {
			out[expr] = &consumer.Resolved{Version: topics.Version(), At: time.Now()}
		}
	}
	return out
}
