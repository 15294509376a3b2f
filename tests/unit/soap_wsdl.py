"""A WSDL with a bit of everything."""

from __future__ import annotations

NAMESPACE = "urn:example:items"
ENVELOPE_11 = "<e:Envelope xmlns:e='http://schemas.xmlsoap.org/soap/envelope/'><e:Body>%s</e:Body></e:Envelope>"
ENVELOPE_12 = "<e:Envelope xmlns:e='http://www.w3.org/2003/05/soap-envelope'><e:Body>%s</e:Body></e:Envelope>"

SCHEMA = f"""<x:schema xmlns:x="http://www.w3.org/2001/XMLSchema" xmlns:t="{NAMESPACE}" targetNamespace="{NAMESPACE}">
  <x:complexType name="Item">
    <x:sequence>
      <x:element name="name" type="x:string"/>
      <x:element name="count" type="x:int" minOccurs="0"/>
      <x:element name="flag" type="x:boolean" minOccurs="0"/>
      <x:element name="when" type="x:dateTime" minOccurs="0"/>
      <x:element name="data" type="x:base64Binary" minOccurs="0"/>
      <x:element name="tag" type="t:Tag" minOccurs="0" maxOccurs="3"/>
      <x:choice minOccurs="0">
        <x:element name="cash" type="x:decimal"/>
        <x:element name="card" type="x:string"/>
      </x:choice>
      <x:sequence minOccurs="0">
        <x:element name="first" type="x:string"/>
        <x:element name="second" type="x:string"/>
      </x:sequence>
      <x:element name="note" type="x:string" minOccurs="0" nillable="true"/>
      <x:element name="pair" type="t:Pair" minOccurs="0" maxOccurs="unbounded"/>
    </x:sequence>
    <x:attribute name="code" type="x:string"/>
  </x:complexType>
  <x:complexType name="BigItem">
    <x:complexContent><x:extension base="t:Item">
      <x:sequence><x:element name="weight" type="x:double"/></x:sequence>
    </x:extension></x:complexContent>
  </x:complexType>
  <x:complexType name="Pair">
    <x:sequence><x:element name="key" type="x:string"/><x:element name="value" type="x:string"/></x:sequence>
  </x:complexType>
  <x:simpleType name="Tag"><x:restriction base="x:string"><x:maxLength value="9"/></x:restriction></x:simpleType>
  <x:complexType name="Sending">
    <x:sequence>
      <x:element name="item" type="t:Item"/>
      <x:any minOccurs="0" maxOccurs="unbounded" namespace="##other" processContents="lax"/>
    </x:sequence>
  </x:complexType>
  <x:element name="send" type="t:Sending"/>
  <x:element name="sendResponse" type="t:Sending"/>
  <x:element name="ping" type="x:string"/>
  <x:element name="pong" type="x:decimal"/>
  <x:element name="rows"><x:complexType><x:sequence maxOccurs="unbounded">
    <x:element name="a" type="x:int"/><x:element name="b" type="x:string" minOccurs="0"/>
  </x:sequence></x:complexType></x:element>
  <x:element name="Session"><x:complexType><x:sequence>
    <x:element name="id" type="x:string"/>
  </x:sequence></x:complexType></x:element>
</x:schema>"""

_OPERATIONS = {
    "send": ("send", "sendResponse"),
    "ping": ("ping", "pong"),
    "list": ("rows", "rows"),
    "tell": ("ping", ""),
}


def wsdl(*, version: str = "1.1", schema: str = SCHEMA, services: str | None = None, use: str = "literal") -> str:
    """Port type, binding and service of four operations; `services` stands in place of the one service."""
    soap = "http://schemas.xmlsoap.org/wsdl/soap" + ("12/" if version == "1.2" else "/")
    messages, port_type, binding = "", "", ""
    for name, (given, answered) in _OPERATIONS.items():
        messages += f"<message name='{name}In'><part name='body' element='t:{given}'/></message>"
        messages += (
            f"<message name='{name}Out'><part name='body' element='t:{answered}'/></message>" if answered else ""
        )
        port_type += f"<operation name='{name}'><input message='t:{name}In'/>"
        port_type += f"<output message='t:{name}Out'/>" if answered else ""
        port_type += "</operation>"
        header = "<s:header message='t:session' part='session' use='literal'/>" if name == "send" else ""
        binding += f"<operation name='{name}'><s:operation soapAction='urn:{name}'/><input>{header}"
        binding += f"<s:body use='{use}'/></input>" + (f"<output><s:body use='{use}'/></output>" if answered else "")
        binding += "</operation>"
    service = "<service name='Items'><port name='P' binding='t:B'><s:address location='http://127.0.0.1:9/soap?x=1'/>"
    return f"""<definitions xmlns="http://schemas.xmlsoap.org/wsdl/" xmlns:s="{soap}" xmlns:t="{NAMESPACE}"
 targetNamespace="{NAMESPACE}"><types>{schema}</types>
 <message name='session'><part name='session' element='t:Session'/></message>{messages}
 <portType name="T">{port_type}</portType>
 <binding name="B" type="t:T"><s:binding transport="http://schemas.xmlsoap.org/soap/http"/>{binding}</binding>
 {service + "</port></service>" if services is None else services}</definitions>"""
