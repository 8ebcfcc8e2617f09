package classic

import "fmt"

// Error is a refusal by its Kafka error code; 0 is none.
type Error int16

// The errors of groups and offsets, by Kafka's names.
const (
	None                    Error = 0
	OffsetMetadataTooLarge  Error = 12
	LoadInProgress          Error = 14
	CoordinatorNotAvailable Error = 15
	NotCoordinator          Error = 16
	IllegalGeneration       Error = 22
	InconsistentProtocol    Error = 23
	InvalidGroupID          Error = 24
	UnknownMemberID         Error = 25
	InvalidSessionTimeout   Error = 26
	RebalanceInProgress     Error = 27
	InvalidCommitOffsetSize Error = 28
	UnknownTopicOrPartition Error = 3
	UnknownServerError      Error = -1
	UnsupportedVersion      Error = 35
	InvalidRequest          Error = 42
	InvalidProducerEpoch    Error = 47
	InvalidTxnState         Error = 48
	NonEmptyGroup           Error = 68
	GroupIDNotFound         Error = 69
	MemberIDRequired        Error = 79
	GroupMaxSizeReached     Error = 81
	FencedInstanceID        Error = 82
	GroupSubscribedToTopic  Error = 86

	// Of the consumer protocol (KIP-848).
	FencedMemberEpoch        Error = 110
	UnreleasedInstanceID     Error = 111
	UnsupportedAssignor      Error = 112
	StaleMemberEpoch         Error = 113
	InvalidRegularExpression Error = 128
)

var errorNames = map[Error]string{
	None: "NONE", OffsetMetadataTooLarge: "OFFSET_METADATA_TOO_LARGE", LoadInProgress: "COORDINATOR_LOAD_IN_PROGRESS",
	CoordinatorNotAvailable: "COORDINATOR_NOT_AVAILABLE", NotCoordinator: "NOT_COORDINATOR", IllegalGeneration: "ILLEGAL_GENERATION",
	InconsistentProtocol: "INCONSISTENT_GROUP_PROTOCOL", InvalidGroupID: "INVALID_GROUP_ID", UnknownMemberID: "UNKNOWN_MEMBER_ID",
	InvalidSessionTimeout: "INVALID_SESSION_TIMEOUT", RebalanceInProgress: "REBALANCE_IN_PROGRESS",
	InvalidCommitOffsetSize: "INVALID_COMMIT_OFFSET_SIZE", UnknownTopicOrPartition: "UNKNOWN_TOPIC_OR_PARTITION",
	UnknownServerError: "UNKNOWN_SERVER_ERROR", UnsupportedVersion: "UNSUPPORTED_VERSION", InvalidRequest: "INVALID_REQUEST", NonEmptyGroup: "NON_EMPTY_GROUP", GroupIDNotFound: "GROUP_ID_NOT_FOUND",
	MemberIDRequired: "MEMBER_ID_REQUIRED", GroupMaxSizeReached: "GROUP_MAX_SIZE_REACHED", FencedInstanceID: "FENCED_INSTANCE_ID",
	GroupSubscribedToTopic: "GROUP_SUBSCRIBED_TO_TOPIC", FencedMemberEpoch: "FENCED_MEMBER_EPOCH", UnreleasedInstanceID: "UNRELEASED_INSTANCE_ID",
	UnsupportedAssignor: "UNSUPPORTED_ASSIGNOR", StaleMemberEpoch: "STALE_MEMBER_EPOCH", InvalidRegularExpression: "INVALID_REGULAR_EXPRESSION",
}

// Error is Kafka's name of the code.
func (e Error) Error() string {
	if name, ok := errorNames[e]; ok {
		return name
	}
	return fmt.Sprintf("error code %d", int16(e))
}
