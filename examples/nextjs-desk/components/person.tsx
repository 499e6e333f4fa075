"use client";

import type { Person as PersonOfContext } from "@dialler/client";
import { useEffect, useRef } from "react";

import { age, day, spokenPhone, when } from "@/lib/words";

import styles from "./person.module.css";

export function Person({ user }: { readonly user: PersonOfContext }) {
  const heading = useRef<HTMLHeadingElement>(null);
  const { user_id: userId } = user;
  useEffect(() => {
    // A reader of screens hears at once who it is.
    heading.current?.focus();
  }, [userId]);
  const name = [user.first_name, user.last_name].filter(Boolean).join(" ") || "Name unknown";
  return (
    <section className="panel" aria-labelledby="person-name">
      <div className={styles.top}>
        <div>
          <h1 id="person-name" ref={heading} tabIndex={-1} className={styles.name}>
            {name}
          </h1>
          <p className="muted">
            Person {userId}
            {user.previous_name && `, formerly ${user.previous_name}`}
          </p>
        </div>
        <Phone user={user} />
      </div>
      <p className={styles.badges}>
        <Badge isGood={user.has_signature} yes="Signed" no="Not signed" />
        <Badge isGood={user.has_id_document} yes="ID on file" no="No ID yet" />
        {!user.is_enabled && <Badge isGood={false} yes="" no="Account closed" />}
      </p>
      <dl className={styles.facts}>
        <Fact name="Born">
          {user.date_of_birth && `${day(user.date_of_birth)} (${age(user.date_of_birth)})`}
        </Fact>
        <Fact name="E-mail">{user.email_address}</Fact>
        <Fact name="Address">{addressOf(user)}</Fact>
        <Fact name="Introducer">{user.introducer}</Fact>
        <Fact name="Solicitor">{user.solicitor}</Fact>
        <Fact name="Last signed in">{user.last_login && when(user.last_login)}</Fact>
      </dl>
    </section>
  );
}

function Phone({ user }: { readonly user: PersonOfContext }) {
  if (user.phone_number === null) return <p className={styles.phone}>No phone number</p>;
  if (!user.is_phone_valid) {
    return (
      <p className={styles.phone}>
        {user.phone_number} <span className={styles.invalid}>not a valid number</span>
      </p>
    );
  }
  return (
    <p>
      {user.phone_numbers.map((each) => (
        <a key={each} className={styles.phone} href={`tel:${each}`}>
          {spokenPhone(each)}
        </a>
      ))}
      {user.phone_number_as_written && (
        <span className="muted"> as written: {user.phone_number_as_written}</span>
      )}
    </p>
  );
}

function Badge(properties: { readonly isGood: boolean; readonly yes: string; readonly no: string }) {
  return (
    <span className={styles.badge} data-good={properties.isGood}>
      {properties.isGood ? `✓ ${properties.yes}` : properties.no}
    </span>
  );
}

function Fact({ name, children }: { readonly name: string; readonly children: string | null }) {
  return (
    <div>
      <dt>{name}</dt>
      <dd>{children || "—"}</dd>
    </div>
  );
}

function addressOf(user: PersonOfContext): string | null {
  const address = user.current_address;
  if (address === null) return null;
  if (address.full_address) return address.full_address;
  const lines = [address.address_line_1, address.address_line_2, address.post_town, address.post_code];
  return lines.filter(Boolean).join(", ") || null;
}
