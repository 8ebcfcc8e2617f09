package broker

import (
	"context"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// request is one decoded request of an ordinary API, with what a handler may know about who sent it.
type request struct {
	version  int16
	clientID string // at most 256 bytes; "" when the client sent null
	peer     peer
	endpoint *endpoint // the listener the client came in by; see Broker.advertised
	received time.Time // when the frame was complete
	// throttle is how long the client has to wait afterwards, on top of what its request rate says; handlers may set it.
	throttle time.Duration
	// body is the request, its version set. Strings are copies and may be kept; []byte fields alias the frame and must
	// not be used after the handler has returned.
	body kmsg.Request
}

// handler answers one request of an ordinary API. The response has its version set (r.body.ResponseKind() does that).
// An error closes the connection and is for nothing else: what the client should know goes into the response.
// Handlers of one connection run one after the other, of different connections at the same time. ctx ends when the
// connection does.
type handler func(b *Broker, ctx context.Context, r *request) (kmsg.Response, error)

// api is one row of the table: what is advertised is what is served.
type api struct {
	key      int16
	name     string
	min, max int16 // advertised
	// refuseBelow is the lowest version that is answered with more than errors, when that is above min: Produce.
	refuseBelow int16
	maxBody     int32 // bytes after the request header; 0: the broker's MaxRequestBytes
	body        func() kmsg.Request
	handle      handler
	begin       beginner // in place of handle, where the response waits for something
	// start is for Produce and Fetch, which have codecs of their own and answer later than they are read.
	start starter

	metrics *apiMetrics // filled in by the broker
}

// Body limits bound what an array-heavy body can blow up to in memory (kmsg decodes to about 20 times the bytes).
const (
	smallBody = 64 << 10
	adminBody = 1 << 20
	fetchBody = 4 << 20
	syncBody  = 8 << 20 // the leader's assignment for everybody; what the internal topic takes as one record
)

// apiTable is the one list of APIs: requests are dispatched by it and ApiVersions is answered from it. It is a function
// because handleAPIVersions reads it. Rows are in order of the key.
func apiTable() []api {
	return []api{
		{key: 0, name: "Produce", min: 0, max: 13, refuseBelow: 3, start: (*conn).startProduce},
		{key: 1, name: "Fetch", min: 4, max: 18, maxBody: fetchBody, start: (*conn).startFetch},
		{key: 2, name: "ListOffsets", min: 1, max: 11, maxBody: adminBody, body: newBody[kmsg.ListOffsetsRequest], handle: (*Broker).handleListOffsets},
		{key: 3, name: "Metadata", min: 0, max: 13, maxBody: adminBody, body: newBody[kmsg.MetadataRequest], handle: (*Broker).handleMetadata},
		{key: 8, name: "OffsetCommit", min: 2, max: 10, maxBody: adminBody, body: newBody[kmsg.OffsetCommitRequest], begin: (*Broker).beginOffsetCommit},
		{key: 9, name: "OffsetFetch", min: 1, max: 10, maxBody: adminBody, body: newBody[kmsg.OffsetFetchRequest], handle: (*Broker).handleOffsetFetch},
		{key: 10, name: "FindCoordinator", min: 0, max: 6, maxBody: adminBody, body: newBody[kmsg.FindCoordinatorRequest], handle: (*Broker).handleFindCoordinator},
		{key: 11, name: "JoinGroup", min: 0, max: 9, maxBody: adminBody, body: newBody[kmsg.JoinGroupRequest], begin: (*Broker).beginJoinGroup},
		{key: 12, name: "Heartbeat", min: 0, max: 4, maxBody: smallBody, body: newBody[kmsg.HeartbeatRequest], handle: (*Broker).handleHeartbeat},
		{key: 13, name: "LeaveGroup", min: 0, max: 5, maxBody: adminBody, body: newBody[kmsg.LeaveGroupRequest], handle: (*Broker).handleLeaveGroup},
		{key: 14, name: "SyncGroup", min: 0, max: 5, maxBody: syncBody, body: newBody[kmsg.SyncGroupRequest], begin: (*Broker).beginSyncGroup},
		{key: 15, name: "DescribeGroups", min: 0, max: 6, maxBody: adminBody, body: newBody[kmsg.DescribeGroupsRequest], handle: (*Broker).handleDescribeGroups},
		{key: 16, name: "ListGroups", min: 0, max: 5, maxBody: smallBody, body: newBody[kmsg.ListGroupsRequest], handle: (*Broker).handleListGroups},
		{key: 18, name: "ApiVersions", min: 0, max: 4, maxBody: smallBody, body: newBody[kmsg.ApiVersionsRequest], handle: (*Broker).handleAPIVersions},
		{key: 19, name: "CreateTopics", min: 0, max: 7, maxBody: adminBody, body: newBody[kmsg.CreateTopicsRequest], handle: (*Broker).handleCreateTopics},
		{key: 20, name: "DeleteTopics", min: 1, max: 6, maxBody: adminBody, body: newBody[kmsg.DeleteTopicsRequest], handle: (*Broker).handleDeleteTopics},
		{key: 21, name: "DeleteRecords", min: 0, max: 2, maxBody: adminBody, body: newBody[kmsg.DeleteRecordsRequest], handle: (*Broker).handleDeleteRecords},
		{key: 22, name: "InitProducerId", min: 0, max: 5, maxBody: smallBody, body: newBody[kmsg.InitProducerIDRequest], begin: (*Broker).beginInitProducerID},
		{key: 23, name: "OffsetForLeaderEpoch", min: 2, max: 4, maxBody: adminBody, body: newBody[kmsg.OffsetForLeaderEpochRequest], handle: (*Broker).handleOffsetForLeaderEpoch},
		{key: 24, name: "AddPartitionsToTxn", min: 0, max: 5, maxBody: adminBody, body: newBody[kmsg.AddPartitionsToTxnRequest], begin: (*Broker).beginAddPartitionsToTxn},
		{key: 25, name: "AddOffsetsToTxn", min: 0, max: 4, maxBody: smallBody, body: newBody[kmsg.AddOffsetsToTxnRequest], begin: (*Broker).beginAddOffsetsToTxn},
		{key: 26, name: "EndTxn", min: 0, max: 5, maxBody: smallBody, body: newBody[kmsg.EndTxnRequest], begin: (*Broker).beginEndTxn},
		{key: 27, name: "WriteTxnMarkers", min: 1, max: 2, maxBody: adminBody, body: newBody[kmsg.WriteTxnMarkersRequest], begin: (*Broker).beginWriteTxnMarkers},
		{key: 28, name: "TxnOffsetCommit", min: 0, max: 5, maxBody: adminBody, body: newBody[kmsg.TxnOffsetCommitRequest], begin: (*Broker).beginTxnOffsetCommit},
		{key: 29, name: "DescribeACLs", min: 1, max: 3, maxBody: smallBody, body: newBody[kmsg.DescribeACLsRequest], handle: (*Broker).handleDescribeACLs},
		{key: 30, name: "CreateACLs", min: 1, max: 3, maxBody: adminBody, body: newBody[kmsg.CreateACLsRequest], handle: (*Broker).handleCreateACLs},
		{key: 31, name: "DeleteACLs", min: 1, max: 3, maxBody: adminBody, body: newBody[kmsg.DeleteACLsRequest], handle: (*Broker).handleDeleteACLs},
		{key: 32, name: "DescribeConfigs", min: 1, max: 4, maxBody: adminBody, body: newBody[kmsg.DescribeConfigsRequest], handle: (*Broker).handleDescribeConfigs},
		{key: 33, name: "AlterConfigs", min: 0, max: 2, maxBody: adminBody, body: newBody[kmsg.AlterConfigsRequest], handle: (*Broker).handleAlterConfigs},
		{key: 34, name: "AlterReplicaLogDirs", min: 1, max: 2, maxBody: adminBody, body: newBody[kmsg.AlterReplicaLogDirsRequest], handle: (*Broker).handleAlterReplicaLogDirs},
		{key: 35, name: "DescribeLogDirs", min: 1, max: 5, maxBody: adminBody, body: newBody[kmsg.DescribeLogDirsRequest], handle: (*Broker).handleDescribeLogDirs},
		{key: 37, name: "CreatePartitions", min: 0, max: 3, maxBody: adminBody, body: newBody[kmsg.CreatePartitionsRequest], handle: (*Broker).handleCreatePartitions},
		{key: 42, name: "DeleteGroups", min: 0, max: 3, maxBody: adminBody, body: newBody[kmsg.DeleteGroupsRequest], begin: (*Broker).beginDeleteGroups},
		{key: 43, name: "ElectLeaders", min: 0, max: 2, maxBody: adminBody, body: newBody[kmsg.ElectLeadersRequest], handle: (*Broker).handleElectLeaders},
		{key: 44, name: "IncrementalAlterConfigs", min: 0, max: 1, maxBody: adminBody, body: newBody[kmsg.IncrementalAlterConfigsRequest], handle: (*Broker).handleIncrementalAlterConfigs},
		{key: 45, name: "AlterPartitionAssignments", min: 0, max: 1, maxBody: adminBody, body: newBody[kmsg.AlterPartitionAssignmentsRequest], handle: (*Broker).handleAlterPartitionReassignments},
		{key: 46, name: "ListPartitionReassignments", min: 0, max: 0, maxBody: adminBody, body: newBody[kmsg.ListPartitionReassignmentsRequest], handle: (*Broker).handleListPartitionReassignments},
		{key: 47, name: "OffsetDelete", min: 0, max: 0, maxBody: adminBody, body: newBody[kmsg.OffsetDeleteRequest], begin: (*Broker).beginOffsetDelete},
		{key: 48, name: "DescribeClientQuotas", min: 0, max: 1, maxBody: smallBody, body: newBody[kmsg.DescribeClientQuotasRequest], handle: (*Broker).handleDescribeClientQuotas},
		{key: 49, name: "AlterClientQuotas", min: 0, max: 1, maxBody: adminBody, body: newBody[kmsg.AlterClientQuotasRequest], handle: (*Broker).handleAlterClientQuotas},
		{key: 50, name: "DescribeUserSCRAMCredentials", min: 0, max: 0, maxBody: adminBody, body: newBody[kmsg.DescribeUserSCRAMCredentialsRequest], handle: (*Broker).handleDescribeUserScramCredentials},
		{key: 55, name: "DescribeQuorum", min: 0, max: 2, maxBody: smallBody, body: newBody[kmsg.DescribeQuorumRequest], handle: (*Broker).handleDescribeQuorum},
		{key: 57, name: "UpdateFeatures", min: 0, max: 2, maxBody: smallBody, body: newBody[kmsg.UpdateFeaturesRequest], handle: (*Broker).handleUpdateFeatures},
		{key: 60, name: "DescribeCluster", min: 0, max: 2, maxBody: smallBody, body: newBody[kmsg.DescribeClusterRequest], handle: (*Broker).handleDescribeCluster},
		{key: 61, name: "DescribeProducers", min: 0, max: 0, maxBody: adminBody, body: newBody[kmsg.DescribeProducersRequest], handle: (*Broker).handleDescribeProducers},
		{key: 65, name: "DescribeTransactions", min: 0, max: 0, maxBody: adminBody, body: newBody[kmsg.DescribeTransactionsRequest], handle: (*Broker).handleDescribeTransactions},
		{key: 66, name: "ListTransactions", min: 0, max: 2, maxBody: adminBody, body: newBody[kmsg.ListTransactionsRequest], handle: (*Broker).handleListTransactions},
		{key: 68, name: "ConsumerGroupHeartbeat", min: 0, max: 1, maxBody: adminBody, body: newBody[kmsg.ConsumerGroupHeartbeatRequest], begin: (*Broker).beginConsumerGroupHeartbeat},
		{key: 69, name: "ConsumerGroupDescribe", min: 0, max: 1, maxBody: adminBody, body: newBody[kmsg.ConsumerGroupDescribeRequest], handle: (*Broker).handleConsumerGroupDescribe},
		{key: 74, name: "ListConfigResources", min: 0, max: 1, maxBody: smallBody, body: newBody[kmsg.ListConfigResourcesRequest], handle: (*Broker).handleListConfigResources},
		{key: 75, name: "DescribeTopicPartitions", min: 0, max: 0, maxBody: adminBody, body: newBody[kmsg.DescribeTopicPartitionsRequest], handle: (*Broker).handleDescribeTopicPartitions},
	}
}

// newBody makes an empty request body of one kind.
func newBody[T any, P interface {
	*T
	kmsg.Request
}]() kmsg.Request {
	return P(new(T))
}

// api finds the row of a key.
func (b *Broker) api(key int16) (*api, bool) {
	i, ok := slices.BinarySearchFunc(b.apis, key, func(a api, key int16) int { return int(a.key) - int(key) })
	if !ok {
		return nil, false
	}
	return &b.apis[i], true
}
