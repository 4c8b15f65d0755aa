package cost

// Seen is where a price was seen as it stands here, besides the memory of the author of the table. AWS's own pages fill
// in their numbers by a program, so that no stored copy of them has any: where AWS itself is named, the number stands in
// the text of its page.
type Seen struct {
	At   string
	When string // year and month of what was seen; empty: it does not say
}

// SeenAt returns where prices were seen, by key. A key that is missing was not seen anywhere.
func SeenAt() map[int]Seen {
	const s3 = "https://www.usage.ai/blogs/aws/storage-cost/glacier-deep-archive-pricing/"
	const requests = "https://c3x.dev/blog/s3-request-fees-explained"
	const bridge = "https://cloudburn.io/blog/amazon-eventbridge-pricing"
	return map[int]Seen{
		S3Standard:           {s3, "2026-06"},
		S3Infrequent:         {s3, "2026-06"},
		S3Put:                {requests, ""},
		S3Get:                {requests, ""},
		S3PutInfrequent:      {requests, ""},
		S3GetInfrequent:      {requests, ""},
		S3RetrieveInfrequent: {s3, "2026-06"},
		LambdaSecond:         {"https://cloudchipr.com/blog/aws-lambda-pricing", "2024"},
		LambdaRequest:        {"https://docs.aws.amazon.com/whitepapers/latest/how-aws-pricing-works/lambda.html", ""},
		SQSRequest:           {"https://cloudburn.io/blog/amazon-sqs-pricing", "2026-03"},
		EventCustom:          {bridge, "2026-03"},
		SchedulerInvocation:  {bridge, "2026-03"},
		Metric:               {"https://signoz.io/guides/cloudwatch-pricing", "2026-02"},
		LogByte:              {"https://www.factualminds.com/blog/amazon-cloudwatch-pricing-metrics-logs-alarms-dashboards/", "2026-06"},
		KMSKey:               {"https://aws.amazon.com/kms/pricing/", ""},
		KMSRequest:           {"https://www.factualminds.com/blog/aws-kms-pricing-keys-requests-multi-region/", "2026-06"},
		EBSSnapshot:          {"https://cloudburn.io/blog/aws-backup-pricing", "2026-02"},
	}
}
