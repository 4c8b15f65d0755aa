// Package cost computes what a deployment costs a month, and what AWS Backup and a server of one's own would cost for
// the same hosts. docs/cost.md is written by its test, so that no number on that page drifts from the model:
// `go test ./test/cost -update`.
//
// What the control plane does comes from the code: the functions' memory and schedules, the metrics that are emitted,
// the alarms, the projection of the policy. What AWS charges is the list below.
package cost

// Price is one price of AWS, in US dollars, in us-east-1, without free tiers and discounts.
type Price struct {
	What   string
	Dollar float64
	Per    string
	Source string // where AWS publishes it
}

// The keys of prices.
const (
	S3Standard = iota
	S3Infrequent
	S3Put
	S3Get
	S3PutInfrequent
	S3GetInfrequent
	S3RetrieveInfrequent
	Transfer
	LambdaSecond
	LambdaRequest
	SQSRequest
	EventCustom
	SchedulerInvocation
	Metric
	Alarm
	CompositeAlarm
	LogByte
	KMSKey
	KMSRequest
	EBSSnapshot
	EBSVolume
	InstanceHour
)

// Prices returns the prices by key. They are AWS's public list prices as the author of this table knew them; look at
// the pages before deciding anything.
func Prices() map[int]Price {
	const s3, lambda, sqs, events, watch = "https://aws.amazon.com/s3/pricing/", "https://aws.amazon.com/lambda/pricing/",
		"https://aws.amazon.com/sqs/pricing/", "https://aws.amazon.com/eventbridge/pricing/", "https://aws.amazon.com/cloudwatch/pricing/"
	const kms, backup, ebs, ec2 = "https://aws.amazon.com/kms/pricing/", "https://aws.amazon.com/backup/pricing/",
		"https://aws.amazon.com/ebs/pricing/", "https://aws.amazon.com/ec2/pricing/on-demand/"
	return map[int]Price{
		S3Standard:           {"S3 Standard", 0.023, "GB and month", s3},
		S3Infrequent:         {"S3 Standard-IA (the replica)", 0.0125, "GB and month", s3},
		S3Put:                {"S3 PUT, LIST", 0.005, "1,000", s3},
		S3Get:                {"S3 GET", 0.0004, "1,000", s3},
		S3PutInfrequent:      {"S3 PUT into Standard-IA", 0.01, "1,000", s3},
		S3GetInfrequent:      {"S3 GET from Standard-IA", 0.001, "1,000", s3},
		S3RetrieveInfrequent: {"S3 retrieval from Standard-IA", 0.01, "GB", s3},
		Transfer:             {"transfer to another region", 0.02, "GB", s3},
		LambdaSecond:         {"Lambda, arm64", 0.0000133334, "GB and second", lambda},
		LambdaRequest:        {"Lambda, invocations", 0.20, "million", lambda},
		SQSRequest:           {"SQS, standard queues", 0.40, "million requests", sqs},
		EventCustom:          {"EventBridge, own events", 1.00, "million", events},
		SchedulerInvocation:  {"EventBridge Scheduler", 1.00, "million invocations", events},
		Metric:               {"CloudWatch metric", 0.30, "metric and month", watch},
		Alarm:                {"CloudWatch alarm", 0.10, "alarm and month", watch},
		CompositeAlarm:       {"CloudWatch composite alarm", 0.50, "alarm and month", watch},
		LogByte:              {"CloudWatch Logs", 0.50, "GB", watch},
		KMSKey:               {"KMS key", 1.00, "key and month", kms},
		KMSRequest:           {"KMS requests", 0.03, "10,000", kms},
		EBSSnapshot:          {"AWS Backup of EBS volumes", 0.05, "GB and month", backup},
		EBSVolume:            {"EBS gp3", 0.08, "GB and month", ebs},
		InstanceHour:         {"EC2 m7g.large", 0.0816, "hour", ec2},
	}
}
