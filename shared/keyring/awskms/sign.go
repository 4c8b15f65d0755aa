package awskms

import (
	"cmp"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/x509"
	"fmt"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
)

// maxMessage is the longest message that KMS signs as it is, in bytes.
const maxMessage = 4096

// Public returns the public key of an asymmetric key that signs: an [*ecdsa.PublicKey] of a key of spec ECC_NIST_P256, or
// an [ed25519.PublicKey] of one of ECC_NIST_EDWARDS25519. Others are errors. It needs the right kms:GetPublicKey.
func (c *Client) Public(ctx context.Context, arn string) (crypto.PublicKey, error) {
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(c.options.Timeout, Timeout))
	defer cancel()
	client, err := c.region(ctx, arn)
	if err != nil {
		return nil, err
	}
	out, err := client.GetPublicKey(ctx, &kms.GetPublicKeyInput{KeyId: &arn})
	if err != nil {
		return nil, fmt.Errorf("get public key of KMS: %w", short(err))
	}
	if aws.ToString(out.KeyId) != arn {
		return nil, fmt.Errorf("get public key of KMS: the answer is by key %q: name the key itself, not an alias", aws.ToString(out.KeyId))
	}
	key, err := x509.ParsePKIXPublicKey(out.PublicKey)
	if err != nil {
		return nil, fmt.Errorf("get public key of KMS: %w", err)
	}
	by, err := algorithm(key)
	if err != nil || out.KeyUsage != types.KeyUsageTypeSignVerify || !slices.Contains(out.SigningAlgorithms, by) {
		return nil, fmt.Errorf("key %s has spec %s for %s: want one for SIGN_VERIFY of spec %s or %s", arn, out.KeySpec, out.KeyUsage,
			types.KeySpecEccNistP256, types.KeySpecEccNistEdwards25519)
	}
	return key, nil
}

// algorithm is how a key signs.
func algorithm(key crypto.PublicKey) (types.SigningAlgorithmSpec, error) {
	switch k := key.(type) {
	case *ecdsa.PublicKey:
		if k.Curve == elliptic.P256() {
			return types.SigningAlgorithmSpecEcdsaSha256, nil
		}
	case ed25519.PublicKey:
		return types.SigningAlgorithmSpecEd25519Sha512, nil
	}
	return "", fmt.Errorf("keys of type %T do not sign here", key)
}

// Sign signs a message of at most 4,096 bytes by a key whose public key [Client.Public] has told: by ECDSA over its
// SHA-256, in ASN.1, or by Ed25519. It needs the right kms:Sign.
func (c *Client) Sign(ctx context.Context, arn string, public crypto.PublicKey, message []byte) ([]byte, error) {
	if len(message) > maxMessage {
		return nil, fmt.Errorf("sign with KMS: %d bytes are more than %d", len(message), maxMessage)
	}
	by, err := algorithm(public)
	if err != nil {
		return nil, fmt.Errorf("sign with KMS: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(c.options.Timeout, Timeout))
	defer cancel()
	client, err := c.region(ctx, arn)
	if err != nil {
		return nil, err
	}
	out, err := client.Sign(ctx, &kms.SignInput{KeyId: &arn, Message: message, MessageType: types.MessageTypeRaw, SigningAlgorithm: by})
	if err != nil {
		return nil, fmt.Errorf("sign with KMS: %w", short(err))
	}
	return out.Signature, nil
}
