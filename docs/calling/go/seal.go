// Seals a credential for one instance: nobody but a worker can open it, and for no other instance.
package main

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"net/http"

	"github.com/cloudflare/circl/hpke"
)

type Sealed struct {
	KeyID  string `json:"keyId"`
	Sealed string `json:"sealed"`
}

func seal(gateway, instanceID string, secret any) (Sealed, error) {
	answer, err := http.Get(gateway + "/v1/seal-key")
	if err != nil {
		return Sealed{}, err
	}
	defer answer.Body.Close()
	var key struct {
		KeyID     string `json:"keyId"`
		PublicKey []byte `json:"publicKey"` // base64 in JSON
	}
	if err := json.NewDecoder(answer.Body).Decode(&key); err != nil {
		return Sealed{}, err
	}
	public, err := hpke.KEM_X25519_HKDF_SHA256.Scheme().UnmarshalBinaryPublicKey(key.PublicKey)
	if err != nil {
		return Sealed{}, err
	}
	plaintext, err := json.Marshal(secret)
	if err != nil {
		return Sealed{}, err
	}
	suite := hpke.NewSuite(hpke.KEM_X25519_HKDF_SHA256, hpke.KDF_HKDF_SHA256, hpke.AEAD_AES256GCM)
	sender, err := suite.NewSender(public, []byte("integration-service/v1/"+instanceID))
	if err != nil {
		return Sealed{}, err
	}
	encapsulated, sealer, err := sender.Setup(rand.Reader)
	if err != nil {
		return Sealed{}, err
	}
	ciphertext, err := sealer.Seal(plaintext, nil)
	if err != nil {
		return Sealed{}, err
	}
	box := append(encapsulated, ciphertext...)
	return Sealed{KeyID: key.KeyID, Sealed: base64.StdEncoding.EncodeToString(box)}, nil
}
