import type { Claim, Requirement, VehiclePackage } from "@dialler/client";

import { day, humanised, pounds } from "@/lib/words";

import styles from "./claims.module.css";

export function Claims({ claims }: { readonly claims: readonly Claim[] }) {
  return (
    <section className="panel" aria-labelledby="claims-title">
      <h2 id="claims-title">Claims</h2>
      {claims.length === 0 && <p className="muted">No claims.</p>}
      <ul className={styles.claims}>
        {claims.map((claim) => (
          <li key={claim.claim_id} className={styles.claim}>
            <h3>
              {claim.lender ?? "Lender unknown"}{" "}
              <span className={styles.status} data-ended={isEnded(claim)}>
                {humanised(claim.status ?? "open")}
              </span>
            </h3>
            <p className="muted">
              Claim {claim.claim_id}
              {claim.type && ` · ${humanised(claim.type)}`}
              {claim.created_at && ` · since ${day(claim.created_at)}`}
              {claim.solicitor && ` · ${claim.solicitor}`}
            </p>
            <Requirements requirements={claim.requirements} />
            {claim.vehicle_packages.map((each) => (
              <Vehicle key={each.vehicle_package_id} vehicle={each} />
            ))}
          </li>
        ))}
      </ul>
    </section>
  );
}

function Requirements({ requirements }: { readonly requirements: readonly Requirement[] }) {
  if (requirements.length === 0) return <p className="muted">Nothing has been asked for.</p>;
  return (
    <ul className={styles.requirements}>
      {requirements.map((each) => (
        <li key={each.requirement_id} data-status={each.status ?? ""}>
          <span>{humanised(each.type ?? "requirement")}</span>
          <span className={styles.state}>
            {each.status === "PENDING" ? "Wanted" : humanised(each.status ?? "unknown")}
          </span>
          {each.rejection_reason && (
            <span className={styles.rejected}>Turned down: {each.rejection_reason}</span>
          )}
        </li>
      ))}
    </ul>
  );
}

function Vehicle({ vehicle }: { readonly vehicle: VehiclePackage }) {
  const car = [vehicle.vehicle_make, vehicle.vehicle_model].filter(Boolean).join(" ");
  return (
    <p className={styles.vehicle}>
      {vehicle.vehicle_registration && <strong>{vehicle.vehicle_registration}</strong>} {car}
      {vehicle.dealership_name && `, ${vehicle.dealership_name}`}
      {vehicle.monthly_payment && `, ${pounds(vehicle.monthly_payment)} a month`}
      {vehicle.contract_start_date && `, from ${day(vehicle.contract_start_date)}`}
    </p>
  );
}

function isEnded(claim: Claim): boolean {
  return claim.status === "complete" || claim.status === "cancelled";
}
